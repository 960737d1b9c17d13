(module
  (type (;0;) (func (param i32)))
  (memory (;0;) 2)
  (memory (;1;) 16 16)
  (global $__stack_pointer (;0;) (mut i32) i32.const 65536)
  (export "memory" (memory 0))
  (export "frame" (func 1))
  (export "vmsync1:cards" (memory 1))
  (func $f (;0;) (type 0) (param i32))
  (func (;1;) (type 0) (param $a i32)
    (local $sp i32) (local i32)
    global.get $__stack_pointer
    i32.const 16
    i32.sub
    local.tee $sp
    global.set $__stack_pointer
    local.get $sp
    i32.const 1
    i32.store offset=12
    local.get $sp
    i32.const 1
    i32.store offset=16
    local.get $sp
    i32.const 16
    i32.add
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $sp
    i64.const 1
    i64.store offset=12
    local.get $sp
    i32.const 12
    i32.add
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $sp
    local.get $a
    local.get $a
    select
    local.tee 2
    i32.const 1
    i32.store
    local.get 2
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    i32.const 1
    i32.store
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $sp
    call $f
    local.get $sp
    i32.const 1
    i32.store offset=8
    local.get $sp
    i32.const 0
    i32.const 16
    memory.fill
    local.get $sp
    i32.const 16
    i32.add
    global.set $__stack_pointer
  )
  (@custom "vmsync1:cards" (after code) "\0c\80\80\04\10\00")
)
