;; Kernels for examples/barrier_cost.rs and the benchmark of trackers, which share them; by hand: each an exported function that returns a checksum.
(module
  (memory (export "memory") 80)

  (func $at (param $base i32) (param $i i32) (param $j i32) (result i32)
    (i32.add (local.get $base) (i32.shl (i32.add (i32.mul (local.get $i) (i32.const 200)) (local.get $j)) (i32.const 3))))

  ;; Three matrices of 200 x 200 f64 at 0, 320000 and 640000.
  (func $init (local $p i32)
    (loop $next
      (f64.store (local.get $p) (f64.convert_i32_u (i32.rem_u (local.get $p) (i32.const 56))))
      (br_if $next (i32.lt_u (local.tee $p (i32.add (local.get $p) (i32.const 8))) (i32.const 960000)))))

  (func (export "gemm") (result i64) (local $i i32) (local $j i32) (local $k i32) (local $c i32) (local $b i32) (local $a f64)
    (call $init)
    (loop $rows
      (local.set $k (i32.const 0))
      (loop $inner
        (local.set $a (f64.load (call $at (i32.const 0) (local.get $i) (local.get $k))))
        (local.set $b (call $at (i32.const 320000) (local.get $k) (i32.const 0)))
        (local.set $c (call $at (i32.const 640000) (local.get $i) (i32.const 0)))
        (local.set $j (i32.const 200))
        (loop $columns
          (f64.store (local.get $c)
            (f64.add (f64.load (local.get $c)) (f64.mul (local.get $a) (f64.load (local.get $b)))))
          (local.set $b (i32.add (local.get $b) (i32.const 8)))
          (local.set $c (i32.add (local.get $c) (i32.const 8)))
          (br_if $columns (local.tee $j (i32.sub (local.get $j) (i32.const 1)))))
        (br_if $inner (i32.lt_s (local.tee $k (i32.add (local.get $k) (i32.const 1))) (i32.const 200))))
      (br_if $rows (i32.lt_s (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 200))))
    (i64.reinterpret_f64 (f64.load (i32.const 640808))))

  (func $smooth (param $from i32) (param $to i32) (local $i i32) (local $j i32) (local $p i32)
    (local.set $i (i32.const 1))
    (loop $rows
      (local.set $j (i32.const 1))
      (loop $columns
        (local.set $p (i32.shl (i32.add (i32.mul (local.get $i) (i32.const 200)) (local.get $j)) (i32.const 3)))
        (f64.store (i32.add (local.get $to) (local.get $p))
          (f64.mul (f64.const 0.2)
            (f64.add (f64.load (local.tee $p (i32.add (local.get $from) (local.get $p))))
              (f64.add
                (f64.add (f64.load (i32.sub (local.get $p) (i32.const 8))) (f64.load offset=8 (local.get $p)))
                (f64.add (f64.load (i32.sub (local.get $p) (i32.const 1600))) (f64.load offset=1600 (local.get $p)))))))
        (br_if $columns (i32.ne (local.tee $j (i32.add (local.get $j) (i32.const 1))) (i32.const 199))))
      (br_if $rows (i32.ne (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 199)))))

  (func (export "jacobi_2d") (result i64) (local $t i32)
    (call $init)
    (loop $steps
      (call $smooth (i32.const 0) (i32.const 320000))
      (call $smooth (i32.const 320000) (i32.const 0))
      (br_if $steps (i32.lt_u (local.tee $t (i32.add (local.get $t) (i32.const 1))) (i32.const 100))))
    (i64.reinterpret_f64 (f64.load (i32.const 40808))))

  (func (export "floyd_warshall") (result i64) (local $i i32) (local $j i32) (local $k i32) (local $x i32) (local $y i32)
    (local $row i32) (local $via i32)
    (loop $fill
      (i32.store (i32.shl (local.get $i) (i32.const 2)) (i32.add (i32.rem_u (i32.mul (local.get $i) (i32.const 7919)) (i32.const 997)) (i32.const 1)))
      (br_if $fill (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 40000))))
    (loop $through
      (local.set $i (i32.const 0))
      (loop $rows
        (local.set $row (i32.mul (local.get $i) (i32.const 800)))
        (local.set $via (i32.mul (local.get $k) (i32.const 800)))
        (local.set $x (i32.load (i32.add (local.get $row) (i32.shl (local.get $k) (i32.const 2)))))
        (local.set $j (i32.const 0))
        (block $done
          (loop $columns
            (br_if $done (i32.ge_s (local.get $j) (i32.const 200)))
            (i32.store (i32.add (local.get $row) (i32.shl (local.get $j) (i32.const 2)))
              (select
                (local.tee $y (i32.add (local.get $x) (i32.load (i32.add (local.get $via) (i32.shl (local.get $j) (i32.const 2))))))
                (i32.load (i32.add (local.get $row) (i32.shl (local.get $j) (i32.const 2))))
                (i32.lt_s (local.get $y) (i32.load (i32.add (local.get $row) (i32.shl (local.get $j) (i32.const 2)))))))
            (local.set $j (i32.add (local.get $j) (i32.const 1)))
            (br $columns)))
        (br_if $rows (i32.lt_s (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 200))))
      (br_if $through (i32.lt_s (local.tee $k (i32.add (local.get $k) (i32.const 1))) (i32.const 200))))
    (i64.load (i32.const 4000)))

  (func (export "sieve") (result i64) (local $i i32) (local $j i32) (local $n i64)
    (memory.fill (i32.const 0) (i32.const 1) (i32.const 4000000))
    (local.set $i (i32.const 2))
    (loop $primes
      (if (i32.load8_u (local.get $i))
        (then
          (local.set $j (i32.mul (local.get $i) (local.get $i)))
          (if (i32.lt_u (local.get $j) (i32.const 4000000))
            (then
              (loop $strike
                (i32.store8 (local.get $j) (i32.const 0))
                (br_if $strike (i32.lt_u (local.tee $j (i32.add (local.get $j) (local.get $i))) (i32.const 4000000))))))))
      (br_if $primes (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 2000))))
    (loop $count
      (local.set $n (i64.add (local.get $n) (i64.load8_u (local.get $i))))
      (br_if $count (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 4000000))))
    (local.get $n))

  (func (export "fill") (result i64) (local $p i32) (local $t i32)
    (loop $rounds
      (local.set $p (i32.const 4000000))
      (loop $down
        (local.set $p (i32.sub (local.get $p) (i32.const 4)))
        (i32.store (local.get $p) (i32.mul (local.get $p) (local.get $t)))
        (br_if $down (local.get $p)))
      (br_if $rounds (i32.lt_u (local.tee $t (i32.add (local.get $t) (i32.const 1))) (i32.const 12))))
    (i64.load (i32.const 65536)))

  ;; Copies of 1 to 1024 bytes between pseudo-random places.
  (func (export "copy") (result i64) (local $x i32) (local $i i32)
    (loop $next
      (local.set $x (i32.add (i32.mul (local.get $x) (i32.const 1664525)) (i32.const 1013904223)))
      (memory.copy
        (i32.shr_u (local.get $x) (i32.const 10))
        (i32.shr_u (i32.mul (local.get $x) (i32.const 69069)) (i32.const 10))
        (i32.add (i32.and (i32.shr_u (local.get $x) (i32.const 4)) (i32.const 1023)) (i32.const 1)))
      (i64.store (i32.shr_u (local.get $x) (i32.const 10)) (i64.extend_i32_u (local.get $x)))
      (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 300000))))
    (i64.load (i32.const 77777)))

  ;; Counts pseudo-random keys in an open table of 2^17 slots of a key and a count.
  (func (export "hash") (result i64) (local $x i32) (local $i i32) (local $slot i32) (local $key i32)
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 1048576))
    (loop $next
      (local.set $x (i32.add (i32.mul (local.get $x) (i32.const 1664525)) (i32.const 1013904223)))
      (local.set $key (i32.or (i32.shr_u (local.get $x) (i32.const 16)) (i32.const 1)))
      (local.set $slot (i32.and (i32.shr_u (i32.mul (local.get $key) (i32.const 0x9e3779b1)) (i32.const 12)) (i32.const 0xffff8)))
      (block $found
        (loop $probe
          (br_if $found (i32.eq (i32.load (local.get $slot)) (local.get $key)))
          (br_if $found (i32.eqz (i32.load (local.get $slot))))
          (local.set $slot (i32.and (i32.add (local.get $slot) (i32.const 8)) (i32.const 0xfffff)))
          (br $probe)))
      (i32.store (local.get $slot) (local.get $key))
      (i32.store offset=4 (local.get $slot) (i32.add (i32.load offset=4 (local.get $slot)) (i32.const 1)))
      (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000000))))
    (i64.load (i32.const 8000)))

  ;; Shell sort of 200,000 numbers.
  (func (export "sort") (result i64) (local $x i32) (local $i i32) (local $j i32) (local $gap i32)
    (loop $init
      (local.set $x (i32.add (i32.mul (local.get $x) (i32.const 1664525)) (i32.const 1013904223)))
      (i32.store (i32.shl (local.get $i) (i32.const 2)) (local.get $x))
      (br_if $init (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 200000))))
    (local.set $gap (i32.const 400000))
    (loop $gaps
      (local.set $gap (i32.and (i32.shr_u (local.get $gap) (i32.const 1)) (i32.const -4)))
      (local.set $i (local.get $gap))
      (loop $insert
        (local.set $x (i32.load (local.tee $j (local.get $i))))
        (block $placed
          (loop $shift
            (br_if $placed (i32.lt_u (local.get $j) (local.get $gap)))
            (br_if $placed (i32.le_s (i32.load (i32.sub (local.get $j) (local.get $gap))) (local.get $x)))
            (i32.store (local.get $j) (i32.load (i32.sub (local.get $j) (local.get $gap))))
            (local.set $j (i32.sub (local.get $j) (local.get $gap)))
            (br $shift)))
        (i32.store (local.get $j) (local.get $x))
        (br_if $insert (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4))) (i32.const 800000))))
      (br_if $gaps (i32.gt_u (local.get $gap) (i32.const 4))))
    (i64.load (i32.const 40000)))
)
