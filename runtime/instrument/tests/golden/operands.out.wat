(module
  (type (;0;) (func (param i32) (result i32)))
  (type (;1;) (func (result i32 f64)))
  (type (;2;) (func (param i32)))
  (type (;3;) (func))
  (memory (;0;) 1)
  (memory (;1;) 16 16)
  (export "memory" (memory 0))
  (export "stale" (func 2))
  (export "tee" (func 3))
  (export "call" (func 4))
  (export "nested" (func 5))
  (export "pair" (func 6))
  (export "block" (func 7))
  (export "dead" (func 8))
  (export "vmsync1:cards" (memory 1))
  (func $f (;0;) (type 0) (param i32) (result i32)
    local.get 0
  )
  (func $two (;1;) (type 1) (result i32 f64)
    i32.const 8
    f64.const 0x1p+0 (;=1;)
  )
  (func (;2;) (type 2) (param $a i32)
    (local i32)
    local.get $a
    local.tee 1
    i32.const 7
    local.set $a
    local.get $a
    i32.store
    local.get 1
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
  )
  (func (;3;) (type 2) (param $a i32)
    local.get $a
    call $f
    local.tee $a
    i32.const 1
    i32.store
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
  )
  (func (;4;) (type 2) (param $a i32)
    (local i32)
    local.get $a
    call $f
    local.tee 1
    i32.const 1
    call $f
    i32.store
    local.get 1
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
  )
  (func (;5;) (type 2) (param $a i32)
    (local i32 i32)
    local.get $a
    call $f
    local.tee 1
    i32.const 8
    call $f
    local.tee 2
    i32.const 1
    i32.atomic.rmw.add
    local.get 2
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    i32.store
    local.get 1
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
  )
  (func (;6;) (type 3)
    (local i32 f64)
    call $two
    local.set 1
    local.tee 0
    local.get 1
    f64.store
    local.get 0
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
  )
  (func (;7;) (type 2) (param $a i32)
    (local i32)
    block (result i32) ;; label = @1
      i32.const 4
      local.get $a
      br_if 0 (;@1;)
      drop
      i32.const 8
    end
    local.tee 1
    i32.const 1
    i32.store
    local.get 1
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
  )
  (func (;8;) (type 2) (param $a i32)
    return
    i32.store
    i32.const 1
    f32.const 0x1p+1 (;=2;)
    f32.store
  )
  (@custom "vmsync1:cards" (after code) "\0c\00\10\00")
)
