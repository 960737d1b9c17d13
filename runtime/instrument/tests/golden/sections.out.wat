(module $named
  (@custom "before" (before first) "kept")
  (type (;0;) (func (param i32)))
  (import "m" "first" (memory $first (;0;) 1))
  (memory $second (;1;) 2)
  (memory $vmsync1:cards (;2;) 16 16)
  (export "vmsync1:cards" (memory $vmsync1:cards))
  (func $g (;0;) (type 0) (param $a i32)
    (local $x i32) (local i32)
    i32.const 5
    local.set $x
    local.get $a
    local.get $a
    i32.add
    local.tee 2
    local.get $x
    i32.store $second
    local.get 2
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 $vmsync1:cards
    (@metadata.code.branch_hint "\01")
    local.get $a
    if ;; label = @1
      local.get $a
      local.get $x
      i32.store $second
      local.get $a
      i32.const 12
      i32.shr_u
      i32.const 1
      i32.store8 $vmsync1:cards
    end
    local.get $a
    local.get $x
    i32.store
  )
  (func $untouched (;1;) (type 0) (param $a i32)
    (@metadata.code.branch_hint "\00")
    local.get $a
    if ;; label = @1
      local.get $a
      i32.const 1
      i32.store
    end
  )
  (@custom "after" (after code) "kept too")
  (@custom "vmsync1:cards" (after code) "\0c\00\10\01")
)
