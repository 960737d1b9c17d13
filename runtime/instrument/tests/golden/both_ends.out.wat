(module
  (type (;0;) (func (param i32)))
  (memory (;0;) 1)
  (memory (;1;) 16 16)
  (export "memory" (memory 0))
  (export "all" (func 0))
  (export "vmsync1:cards" (memory 1))
  (func (;0;) (type 0) (param $a i32)
    local.get $a
    i32.const 1
    i32.store8
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    i64.const 1
    i64.store offset=4
    local.get $a
    i32.const 4
    i32.add
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    i32.const 11
    i32.add
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
  )
  (@custom "vmsync1:cards" (after code) "\0c\00\00\00")
)
