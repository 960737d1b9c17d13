(module
  (type (;0;) (func))
  (type (;1;) (func (param i32)))
  (type (;2;) (func (param i32 i32)))
  (memory (;0;) 1)
  (memory (;1;) 16 16)
  (export "memory" (memory 0))
  (export "head" (func 1))
  (export "page" (func 2))
  (export "operands" (func 3))
  (export "calls" (func 4))
  (export "nesting" (func 5))
  (export "vmsync1:cards" (memory 1))
  (func $f (;0;) (type 0))
  (func (;1;) (type 1) (param $a i32)
    local.get $a
    i32.const 1
    i32.store offset=12
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    i32.const 1
    i32.store
    local.get $a
    i64.const 1
    i64.store offset=4
  )
  (func (;2;) (type 1) (param $a i32)
    local.get $a
    i32.const 1
    i32.store offset=100
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    i32.const 4000
    i32.add
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    i32.const 1
    i32.store
    local.get $a
    i32.const 1
    i32.store offset=4000
    local.get $a
    i32.const 1
    i32.store offset=9000
    local.get $a
    i32.const 9000
    i32.add
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
  )
  (func (;3;) (type 2) (param $a i32) (param $i i32)
    (local i32)
    local.get $a
    local.get $i
    i32.const 2
    i32.shl
    i32.add
    local.tee 2
    i32.const 1
    i32.store
    local.get 2
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get 2
    i32.const 4
    i32.add
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $i
    i32.const 2
    i32.shl
    local.get $a
    i32.const 4
    i32.add
    i32.add
    i32.const 1
    i32.store
  )
  (func (;4;) (type 1) (param $a i32)
    local.get $a
    i32.const 1
    i32.store
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    call $f
    local.get $a
    i32.const 1
    i32.store
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
  )
  (func (;5;) (type 1) (param $a i32)
    local.get $a
    if ;; label = @1
      local.get $a
      i32.const 1
      i32.store
      local.get $a
      i32.const 12
      i32.shr_u
      i32.const 1
      i32.store8 1
    end
    local.get $a
    i32.const 1
    i32.store
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    if ;; label = @1
      local.get $a
      i32.const 1
      i32.store
    else
      call $f
      local.get $a
      i32.const 1
      i32.store
      local.get $a
      i32.const 12
      i32.shr_u
      i32.const 1
      i32.store8 1
    end
    local.get $a
    i32.const 1
    i32.store
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
  )
  (@custom "vmsync1:cards" (after code) "\0c\00\10\00")
)
