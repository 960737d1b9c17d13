(module
  (type (;0;) (func (param i32 v128)))
  (memory (;0;) 1)
  (memory (;1;) 16 16)
  (export "memory" (memory 0))
  (export "all" (func 0))
  (export "vmsync1:cards" (memory 1))
  (func (;0;) (type 0) (param $a i32) (param $v v128)
    local.get $a
    local.get $v
    v128.store8_lane 15
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    local.get $v
    v128.store16_lane offset=2 7
    local.get $a
    i32.const 2
    i32.add
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    local.get $v
    v128.store32_lane 3
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    local.get $v
    v128.store64_lane 1
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
  )
  (@custom "vmsync1:cards" (after code) "\0c\00\10\00")
)
