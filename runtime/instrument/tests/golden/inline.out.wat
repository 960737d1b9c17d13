(module
  (type (;0;) (func (param i32 i32)))
  (type (;1;) (func (param i64 i64)))
  (type (;2;) (func (param i32 i32 i32)))
  (type (;3;) (func (param i32 i32 i32 i32)))
  (type (;4;) (func (param i32 i32)))
  (memory (;0;) 17)
  (export "memory" (memory 0))
  (export "all" (func 0))
  (func (;0;) (type 0) (param $a i32) (param $n i32)
    (local i32 i32 i32)
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
    local.get 2
    local.get 4
    call 1
    memory.fill
  )
  (func (;1;) (type 4) (param i32 i32)
    local.get 1
    if ;; label = @1
      local.get 0
      i32.const 12
      i32.shr_u
      i32.const 1
      i32.store8 offset=65536
      local.get 0
      local.get 1
      i32.add
      i32.const 1
      i32.sub
      i32.const 12
      i32.shr_u
      i32.const 1
      i32.store8 offset=65536
      block ;; label = @2
        loop ;; label = @3
          local.get 1
          i32.const 4096
          i32.le_u
          br_if 1 (;@2;)
          local.get 1
          i32.const 4096
          i32.sub
          local.set 1
          local.get 0
          i32.const 4096
          i32.add
          local.tee 0
          i32.const 12
          i32.shr_u
          i32.const 1
          i32.store8 offset=65536
          br 0 (;@3;)
        end
      end
    end
  )
)
