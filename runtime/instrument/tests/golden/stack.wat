;; analyses: stack
(module
  (memory (export "memory") 2)
  (global $__stack_pointer (mut i32) (i32.const 65536))
  (func $f (param i32))
  (func (export "frame") (param $a i32) (local $sp i32)
    (global.set $__stack_pointer (local.tee $sp (i32.sub (global.get $__stack_pointer) (i32.const 16))))
    (i32.store offset=12 (local.get $sp) (i32.const 1))
    ;; Beyond the frame, through a choice, and somewhere else: marked.
    (i32.store offset=16 (local.get $sp) (i32.const 1))
    (i64.store offset=12 (local.get $sp) (i64.const 1))
    (i32.store (select (local.get $sp) (local.get $a) (local.get $a)) (i32.const 1))
    (i32.store (local.get $a) (i32.const 1))
    (call $f (local.get $sp))
    (i32.store offset=8 (local.get $sp) (i32.const 1))
    (memory.fill (local.get $sp) (i32.const 0) (i32.const 16))
    (global.set $__stack_pointer (i32.add (local.get $sp) (i32.const 16)))))
