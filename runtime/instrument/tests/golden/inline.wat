;; analyses: none inline=65536
(module
  (memory (export "memory") 17)
  (func (export "all") (param $a i32) (param $n i32)
    (i32.store offset=4 (local.get $a) (i32.const 1))
    (memory.fill (local.get $a) (i32.const 0) (local.get $n))))
