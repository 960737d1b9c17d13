(module
  (type (;0;) (func (param i32 f64)))
  (memory (;0;) 1)
  (memory (;1;) 16 16)
  (export "memory" (memory 0))
  (export "all" (func 0))
  (export "vmsync1:cards" (memory 1))
  (func (;0;) (type 0) (param $a i32) (param $v f64)
    (local i32)
    local.get $a
    i32.const 1
    i32.store
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    i32.const 1
    i32.store8 offset=1
    local.get $a
    i32.const 1
    i32.add
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    i32.const 1
    i32.store16 offset=4095
    local.get $a
    i32.const 4095
    i32.add
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    i64.const 1
    i64.store offset=4096
    local.get $a
    i32.const 4096
    i32.add
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    i32.const 4096
    i64.const 1
    i64.store8
    i32.const 1
    i32.const 1
    i32.store8 1
    i32.const 65528
    i64.const 1
    i64.store16 offset=8
    i32.const 16
    i32.const 1
    i32.store8 1
    local.get $a
    i32.const 100
    i32.add
    i64.const 1
    i64.store32
    local.get $a
    i32.const 100
    i32.add
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    local.get $a
    i32.mul
    local.tee 2
    f32.const 0x1p+0 (;=1;)
    f32.store
    local.get 2
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    i32.const 8
    i32.sub
    local.get $v
    f64.store
    local.get $a
    i32.const -8
    i32.add
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    v128.const i32x4 0x00000001 0x00000000 0x00000002 0x00000000
    v128.store
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
  )
  (@custom "vmsync1:cards" (after code) "\0c\00\10\00")
)
