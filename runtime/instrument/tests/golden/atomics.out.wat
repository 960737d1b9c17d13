(module
  (type (;0;) (func (param i32 i32)))
  (type (;1;) (func (param i32 i64)))
  (type (;2;) (func (param i32) (result i32)))
  (memory (;0;) 1 2 shared)
  (memory (;1;) 16 16 shared)
  (export "memory" (memory 0))
  (export "i32" (func 0))
  (export "i64" (func 1))
  (export "none" (func 2))
  (export "vmsync1:cards" (memory 1))
  (func (;0;) (type 0) (param $a i32) (param $v i32)
    local.get $a
    local.get $v
    i32.atomic.store
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    local.get $v
    i32.atomic.rmw.add
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i32.atomic.rmw.sub
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i32.atomic.rmw.and
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i32.atomic.rmw.or
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i32.atomic.rmw.xor
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i32.atomic.rmw.xchg
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    local.get $v
    i32.atomic.rmw.cmpxchg
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i32.atomic.store8
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    local.get $v
    i32.atomic.rmw8.add_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i32.atomic.rmw8.sub_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i32.atomic.rmw8.and_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i32.atomic.rmw8.or_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i32.atomic.rmw8.xor_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i32.atomic.rmw8.xchg_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    local.get $v
    i32.atomic.rmw8.cmpxchg_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i32.atomic.store16
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    local.get $v
    i32.atomic.rmw16.add_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i32.atomic.rmw16.sub_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i32.atomic.rmw16.and_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i32.atomic.rmw16.or_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i32.atomic.rmw16.xor_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i32.atomic.rmw16.xchg_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    local.get $v
    i32.atomic.rmw16.cmpxchg_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
  )
  (func (;1;) (type 1) (param $a i32) (param $v i64)
    local.get $a
    local.get $v
    i64.atomic.store
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    local.get $v
    i64.atomic.rmw.add
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw.sub
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw.and
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw.or
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw.xor
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw.xchg
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    local.get $v
    i64.atomic.rmw.cmpxchg
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.store8
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    local.get $v
    i64.atomic.rmw8.add_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw8.sub_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw8.and_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw8.or_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw8.xor_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw8.xchg_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    local.get $v
    i64.atomic.rmw8.cmpxchg_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.store16
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    local.get $v
    i64.atomic.rmw16.add_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw16.sub_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw16.and_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw16.or_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw16.xor_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw16.xchg_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    local.get $v
    i64.atomic.rmw16.cmpxchg_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.store32
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    local.get $a
    local.get $v
    i64.atomic.rmw32.add_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw32.sub_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw32.and_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw32.or_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw32.xor_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    i64.atomic.rmw32.xchg_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
    local.get $a
    local.get $v
    local.get $v
    i64.atomic.rmw32.cmpxchg_u
    local.get $a
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    drop
  )
  (func (;2;) (type 2) (param $a i32) (result i32)
    local.get $a
    i32.atomic.load
    drop
    atomic.fence
    local.get $a
    i32.const 0
    i64.const 0
    memory.atomic.wait32
    drop
    local.get $a
    i32.const 1
    memory.atomic.notify
  )
  (@custom "vmsync1:cards" (after code) "\0c\00\10\00")
)
