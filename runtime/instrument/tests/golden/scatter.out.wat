(module
  (type (;0;) (func (param i32 i32)))
  (memory (;0;) 1)
  (memory (;1;) 16 16)
  (export "memory" (memory 0))
  (export "vmsync1:cards" (memory 1))
  (func $computed (;0;) (type 0) (param $x i32) (param $n i32)
    (local i32)
    loop ;; label = @1
      local.get $x
      i32.const 60000
      i32.rem_u
      local.tee 2
      i32.const 1
      i32.store8
      local.get 2
      i32.const 12
      i32.shr_u
      i32.load8_u 1
      i32.eqz
      if ;; label = @2
        local.get 2
        i32.const 12
        i32.shr_u
        i32.const 1
        i32.store8 1
      end
      local.get $x
      i32.const 1664525
      i32.mul
      local.set $x
      local.get $n
      i32.const 1
      i32.sub
      local.tee $n
      br_if 0 (;@1;)
    end
  )
  (func $carried (;1;) (type 0) (param $p i32) (param $end i32)
    loop ;; label = @1
      local.get $p
      i32.const 1
      i32.store8
      local.get $p
      i32.const 12
      i32.shr_u
      i32.const 1
      i32.store8 1
      local.get $p
      i32.const 1
      i32.add
      local.set $p
      local.get $p
      local.get $end
      i32.ne
      br_if 0 (;@1;)
    end
  )
  (@custom "vmsync1:cards" (after code) "\0c\00\10\00")
)
