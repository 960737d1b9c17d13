(module
  (type (;0;) (func (param i32 i32 i32 i32)))
  (memory (;0;) 1)
  (memory (;1;) 16 16)
  (export "memory" (memory 0))
  (export "vmsync1:cards" (memory 1))
  (func $up_and_down (;0;) (type 0) (param $p i32) (param $q i32) (param $n i32) (param $rows i32)
    (local $i i32) (local i64 i64 i64 i32)
    loop ;; label = @1
      local.get $n
      local.set $i
      local.get $i
      i32.const -1
      i32.add
      i64.extend_i32_u
      local.set 5
      local.get $p
      i64.extend_i32_u
      local.tee 6
      local.get 5
      i64.const 8
      i64.mul
      i64.add
      local.set 7
      loop ;; label = @2
        local.get 6
        i32.wrap_i64
        i32.const 12
        i32.shr_u
        i32.const 1
        i32.store8 1
        local.get 6
        i64.const 4096
        i64.add
        local.tee 6
        local.get 7
        i64.lt_s
        br_if 0 (;@2;)
      end
      local.get 7
      i32.wrap_i64
      i32.const 12
      i32.shr_u
      i32.const 1
      i32.store8 1
      local.get $q
      i64.extend_i32_u
      local.tee 7
      local.get 5
      i64.const -1
      i64.mul
      i64.add
      local.set 6
      loop ;; label = @2
        local.get 7
        i32.wrap_i64
        i32.const 12
        i32.shr_u
        i32.const 1
        i32.store8 1
        local.get 7
        i64.const -4096
        i64.add
        local.tee 7
        local.get 6
        i64.gt_s
        br_if 0 (;@2;)
      end
      local.get 6
      i32.wrap_i64
      i32.const 12
      i32.shr_u
      i32.const 1
      i32.store8 1
      loop ;; label = @2
        local.get $p
        i64.const 1
        i64.store
        local.get $q
        i32.const 1
        i32.store8
        local.get $p
        i32.const 8
        i32.add
        local.set $p
        local.get $q
        i32.const 1
        i32.sub
        local.set $q
        local.get $i
        i32.const 1
        i32.sub
        local.tee $i
        br_if 0 (;@2;)
      end
      local.get $rows
      i32.const 1
      i32.sub
      local.tee $rows
      br_if 0 (;@1;)
    end
  )
  (@custom "vmsync1:cards" (after code) "\0c\00\10\00")
)
