(module
  (type (;0;) (func (param i64 i64)))
  (memory (;0;) i64 1 262144)
  (memory $small (;1;) 1)
  (memory $vmsync1:cards (;2;) 64 64)
  (export "memory" (memory 0))
  (export "all" (func 0))
  (export "vmsync1:cards" (memory $vmsync1:cards))
  (func (;0;) (type 0) (param $a i64) (param $n i64)
    (local i64 i32 i64 i32 i32 i32)
    local.get $a
    i64.const 1
    i64.store
    local.get $a
    i64.const 12
    i64.shr_u
    i32.wrap_i64
    i32.const 1
    i32.store8 $vmsync1:cards
    local.get $a
    i64.const 1
    i64.store offset=8
    local.get $a
    i64.const 1
    i64.store offset=5000000000
    local.get $a
    i64.const 5000000000
    i64.add
    i64.const 12
    i64.shr_u
    i32.wrap_i64
    i32.const 1
    i32.store8 $vmsync1:cards
    i64.const 4096
    i64.const 1
    i64.store
    i32.const 1
    i32.const 1
    i32.store8 $vmsync1:cards
    local.get $a
    i32.const 0
    local.get $n
    local.set 4
    local.set 3
    local.tee 2
    local.get 3
    local.get 4
    local.get 4
    memory.size
    i64.const 16
    i64.shl
    i64.le_u
    if ;; label = @1
      local.get 2
      memory.size
      i64.const 16
      i64.shl
      local.get 4
      i64.sub
      i64.le_u
      if ;; label = @2
        local.get 4
        i64.const 0
        i64.ne
        if ;; label = @3
          local.get 2
          i64.const 12
          i64.shr_u
          i32.wrap_i64
          local.tee 5
          i32.const 1
          i32.store8 $vmsync1:cards
          local.get 2
          local.get 4
          i64.add
          i64.const -1
          i64.add
          i64.const 12
          i64.shr_u
          i32.wrap_i64
          local.tee 6
          i32.const 1
          i32.store8 $vmsync1:cards
          local.get 6
          local.get 5
          i32.sub
          i32.const 1
          i32.gt_u
          if ;; label = @4
            local.get 5
            i32.const 1
            i32.add
            i32.const 1
            local.get 6
            local.get 5
            i32.sub
            i32.const -1
            i32.add
            memory.fill $vmsync1:cards
          end
        end
      end
    end
    memory.fill
    local.get $a
    i32.const 0
    local.get $n
    i32.wrap_i64
    local.set 6
    local.set 5
    local.tee 4
    local.get 5
    local.get 6
    local.get 6
    i64.extend_i32_u
    memory.size
    i64.const 16
    i64.shl
    i64.le_u
    if ;; label = @1
      local.get 4
      memory.size
      i64.const 16
      i64.shl
      local.get 6
      i64.extend_i32_u
      i64.sub
      i64.le_u
      if ;; label = @2
        local.get 6
        if ;; label = @3
          local.get 4
          i64.const 12
          i64.shr_u
          i32.wrap_i64
          local.tee 3
          i32.const 1
          i32.store8 $vmsync1:cards
          local.get 4
          local.get 6
          i64.extend_i32_u
          i64.add
          i64.const -1
          i64.add
          i64.const 12
          i64.shr_u
          i32.wrap_i64
          local.tee 7
          i32.const 1
          i32.store8 $vmsync1:cards
          local.get 7
          local.get 3
          i32.sub
          i32.const 1
          i32.gt_u
          if ;; label = @4
            local.get 3
            i32.const 1
            i32.add
            i32.const 1
            local.get 7
            local.get 3
            i32.sub
            i32.const -1
            i32.add
            memory.fill $vmsync1:cards
          end
        end
      end
    end
    memory.copy 0 $small
  )
  (@custom "vmsync1:cards" (after code) "\0c\00\10\00")
)
