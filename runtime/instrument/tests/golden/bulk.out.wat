(module
  (type (;0;) (func (param i32 i32)))
  (type (;1;) (func (param i32)))
  (type (;2;) (func (param i64 i64)))
  (type (;3;) (func (param i32 i32 i32)))
  (type (;4;) (func (param i32 i32 i32 i32)))
  (type (;5;) (func (param i32 i32)))
  (memory (;0;) 1)
  (memory $other (;1;) 1)
  (memory $vmsync1:cards (;2;) 16 16)
  (export "memory" (memory 0))
  (export "dynamic" (func 0))
  (export "constant" (func 1))
  (export "vmsync1:cards" (memory $vmsync1:cards))
  (func (;0;) (type 0) (param $a i32) (param $n i32)
    (local i32 i32 i32)
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
    call 2
    memory.fill
    local.get $a
    i32.const 4
    local.get $n
    local.set 2
    local.set 3
    local.tee 4
    local.get 3
    local.get 2
    local.get 4
    local.get 2
    call 2
    memory.copy
    local.get $a
    i32.const 4
    local.get $n
    local.set 2
    local.set 3
    local.tee 4
    local.get 3
    local.get 2
    local.get 4
    local.get 2
    call 2
    memory.copy 0 $other
    local.get $a
    i32.const 4
    local.get $n
    memory.copy $other 0
    local.get $a
    i32.const 0
    local.get $n
    local.set 2
    local.set 3
    local.tee 4
    local.get 3
    local.get 2
    local.get 4
    local.get 2
    call 2
    memory.init $d
  )
  (func (;1;) (type 1) (param $a i32)
    local.get $a
    i32.const 0
    i32.const 0
    memory.fill
    local.get $a
    i32.const 0
    i32.const 17
    memory.fill
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 $vmsync1:cards
    local.get $a
    i32.const 0
    i32.const 4097
    memory.fill
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 $vmsync1:cards
    local.get $a
    i32.const 4096
    i32.add
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 $vmsync1:cards
    local.get $a
    i32.const 0
    i32.const 10
    memory.init $d
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 $vmsync1:cards
  )
  (func (;2;) (type 5) (param i32 i32)
    local.get 1
    if ;; label = @1
      local.get 0
      i32.const 12
      i32.shr_u
      i32.const 1
      i32.store8 $vmsync1:cards
      local.get 0
      local.get 1
      i32.add
      i32.const 1
      i32.sub
      i32.const 12
      i32.shr_u
      i32.const 1
      i32.store8 $vmsync1:cards
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
          i32.store8 $vmsync1:cards
          br 0 (;@3;)
        end
      end
    end
  )
  (data $d (;0;) "0123456789")
  (@custom "vmsync1:cards" (after data) "\0c\00\10\00")
)
