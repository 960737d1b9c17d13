(module
  (type (;0;) (func (param i32 i32)))
  (type (;1;) (func (param i64 i64)))
  (type (;2;) (func (param i32 i32 i32)))
  (type (;3;) (func (param i32 i32 i32 i32)))
  (type (;4;) (func (param i32 i32)))
  (memory (;0;) 1)
  (memory (;1;) 16 16)
  (export "memory" (memory 0))
  (export "pointer" (func 0))
  (export "index" (func 1))
  (export "down" (func 2))
  (export "fixed" (func 3))
  (export "unknown" (func $f))
  (export "vmsync1:cards" (memory 1))
  (func (;0;) (type 0) (param $p i32) (param $end i32)
    (local i64 i64 i64 i32)
    local.get $end
    local.get $p
    i32.const 12
    i32.add
    i32.sub
    i64.extend_i32_u
    local.set 3
    i64.const 4294967296
    local.get 3
    i64.const 12
    i64.div_u
    local.get 3
    i64.const 12
    i64.rem_u
    i64.const 0
    i64.ne
    select
    local.set 2
    local.get $p
    i64.extend_i32_u
    local.tee 3
    local.get 3
    local.get 2
    i64.const 12
    i64.mul
    i64.add
    i64.const 8
    i64.add
    call 5
    loop ;; label = @1
      local.get $p
      i64.const 1
      i64.store
      local.get $p
      i32.const 1
      i32.store offset=8
      local.get $p
      i32.const 12
      i32.add
      local.tee $p
      local.get $end
      i32.ne
      br_if 0 (;@1;)
    end
  )
  (func (;1;) (type 0) (param $a i32) (param $n i32)
    (local $i i32) (local i64 i64 i64 i32)
    block ;; label = @1
      local.get $n
      i64.extend_i32_s
      local.get $i
      i64.extend_i32_s
      i64.sub
      local.set 4
      local.get 4
      i64.const 0
      local.get 4
      i64.const 0
      i64.gt_s
      select
      local.set 3
      local.get $i
      i32.const 3
      i32.shl
      local.get $a
      i32.add
      i64.extend_i32_u
      local.tee 4
      local.get 4
      local.get 3
      i64.const 8
      i64.mul
      i64.add
      call 5
      loop ;; label = @2
        local.get $i
        local.get $n
        i32.ge_s
        br_if 1 (;@1;)
        local.get $a
        local.get $i
        i32.const 3
        i32.shl
        i32.add
        f64.const 0x1p+0 (;=1;)
        f64.store
        local.get $i
        i32.const 1
        i32.add
        local.set $i
        br 0 (;@2;)
      end
    end
  )
  (func (;2;) (type 0) (param $a i32) (param $n i32)
    (local i64 i64 i64 i32)
    local.get $n
    i32.const -4
    i32.add
    i64.extend_i32_u
    i32.const 16
    i64.extend_i32_u
    i64.sub
    local.set 3
    i64.const 4294967296
    local.get 3
    i64.const 3
    i64.add
    i64.const 2
    i64.shr_u
    i64.const 0
    local.get 3
    i64.const 0
    i64.gt_s
    select
    local.tee 2
    local.get $n
    i32.const -4
    i32.add
    i64.extend_i32_u
    local.get 2
    i64.const 4
    i64.mul
    i64.sub
    i64.const 0
    i64.lt_s
    select
    local.set 2
    local.get $n
    local.get $a
    i32.add
    i64.extend_i32_u
    local.tee 4
    local.get 2
    i64.const -4
    i64.mul
    i64.add
    local.get 4
    call 5
    loop ;; label = @1
      local.get $a
      local.get $n
      i32.add
      i32.const 1
      i32.store
      local.get $n
      i32.const 4
      i32.sub
      local.tee $n
      i32.const 16
      i32.gt_u
      br_if 0 (;@1;)
    end
  )
  (func (;3;) (type 0) (param $a i32) (param $n i32)
    (local i64 i64 i64 i32)
    local.get $a
    i32.const 4
    i32.add
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    loop ;; label = @1
      local.get $a
      local.get $n
      i32.store offset=4
      local.get $n
      i32.const 1
      i32.sub
      local.tee $n
      br_if 0 (;@1;)
    end
  )
  (func $f (;4;) (type 0) (param $p i32) (param $q i32)
    loop ;; label = @1
      local.get $p
      i32.const 1
      i32.store
      local.get $p
      i32.const 12
      i32.shr_u
      i32.const 1
      i32.store8 1
      local.get $p
      i32.load
      local.tee $p
      br_if 0 (;@1;)
    end
    loop ;; label = @1
      local.get $p
      i32.load
      if ;; label = @2
        local.get $p
        i32.const 1
        i32.store
        local.get $p
        i32.const 12
        i32.shr_u
        i32.const 1
        i32.store8 1
      end
      local.get $p
      i32.const 4
      i32.add
      local.tee $p
      local.get $q
      i32.ne
      br_if 0 (;@1;)
    end
    loop ;; label = @1
      local.get $p
      i32.const 1
      i32.store
      local.get $p
      i32.const 12
      i32.shr_u
      i32.const 1
      i32.store8 1
      local.get $p
      local.get $q
      call $f
      local.get $p
      i32.const 4
      i32.add
      local.tee $p
      local.get $q
      i32.ne
      br_if 0 (;@1;)
    end
  )
  (func (;5;) (type 1) (param i64 i64)
    (local i64 i32 i32)
    local.get 1
    local.get 0
    i64.sub
    i64.const 4096
    i64.le_u
    if ;; label = @1
      local.get 0
      i32.wrap_i64
      i32.const 12
      i32.shr_u
      i32.const 1
      i32.store8 1
      local.get 1
      i32.wrap_i64
      i32.const 12
      i32.shr_u
      i32.const 1
      i32.store8 1
      return
    end
    local.get 1
    i64.const 4294967295
    i64.gt_u
    local.get 0
    i64.const 0
    i64.lt_s
    i32.or
    memory.size
    i64.extend_i32_u
    i64.const 16
    i64.shl
    local.tee 2
    i64.const 4096
    i64.add
    i64.const 4294963200
    i64.gt_s
    i32.and
    if ;; label = @1
      i64.const 0
      local.set 0
      i64.const 4294967295
      local.set 1
    end
    local.get 0
    i64.const 0
    local.get 0
    i64.const 0
    i64.gt_s
    select
    local.tee 0
    local.get 2
    i64.const 1
    i64.sub
    local.tee 2
    local.get 1
    local.get 2
    local.get 1
    i64.lt_s
    select
    local.tee 1
    i64.le_s
    if ;; label = @1
      local.get 0
      i64.const 12
      i64.shr_u
      i32.wrap_i64
      local.tee 3
      i32.const 1
      i32.store8 1
      local.get 1
      i64.const 12
      i64.shr_u
      i32.wrap_i64
      local.tee 4
      i32.const 1
      i32.store8 1
      local.get 4
      local.get 3
      i32.sub
      i32.const 1
      i32.gt_u
      if ;; label = @2
        local.get 3
        i32.const 1
        i32.add
        i32.const 1
        local.get 4
        local.get 3
        i32.sub
        i32.const -1
        i32.add
        memory.fill 1
      end
    end
  )
  (@custom "vmsync1:cards" (after code) "\0c\00\10\00")
)
