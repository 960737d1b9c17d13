(module
  (type (;0;) (func (param i32 i32)))
  (memory (;0;) 17)
  (export "memory" (memory 0))
  (export "all" (func 0))
  (func (;0;) (type 0) (param $a i32) (param $n i32)
    (local i32 i32 i32 i32 i32)
    local.get $a
    i32.const 1
    i32.store offset=4
    local.get $a
    i32.const 4
    i32.add
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 offset=65536
    local.get $a
    i32.const 0
    local.get $n
    local.set 4
    local.set 3
    local.tee 2
    local.get 3
    local.get 4
    memory.fill
    local.get 4
    if ;; label = @1
      local.get 2
      i32.const 12
      i32.shr_u
      local.tee 5
      i32.const 1
      i32.store8 offset=65536
      local.get 2
      local.get 4
      i32.add
      i32.const -1
      i32.add
      i32.const 12
      i32.shr_u
      local.tee 6
      i32.const 1
      i32.store8 offset=65536
      local.get 6
      local.get 5
      i32.sub
      i32.const 1
      i32.gt_u
      if ;; label = @2
        local.get 5
        i32.const 65537
        i32.add
        i32.const 1
        local.get 6
        local.get 5
        i32.sub
        i32.const -1
        i32.add
        memory.fill
      end
    end
  )
)
