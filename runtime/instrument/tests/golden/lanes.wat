;; analyses: none
(module
  (memory (export "memory") 1)
  (func (export "all") (param $a i32) (param $v v128)
    (v128.store8_lane 15 (local.get $a) (local.get $v))
    (v128.store16_lane offset=2 7 (local.get $a) (local.get $v))
    (v128.store32_lane 3 (local.get $a) (local.get $v))
    (v128.store64_lane 1 (local.get $a) (local.get $v))))
