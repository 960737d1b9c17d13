(module
  (type $two (;0;) (func (param i32 i32) (result i32)))
  (type (;1;) (func (param i32) (result i32)))
  (type (;2;) (func (param i32 i32 i32 i32) (result i32)))
  (type (;3;) (func (param i32 i64) (result i32)))
  (type (;4;) (func (param i64 i64)))
  (type (;5;) (func (param i32 i32 i32)))
  (type (;6;) (func (param i32 i32 i32 i32)))
  (type (;7;) (func (param i32 i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (;0;) (type 1)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (;1;) (type 2)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (;2;) (type $two)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (;3;) (type $two)))
  (import "wasi_snapshot_preview1" "fd_tell" (func $of_another_type (;4;) (type 3)))
  (import "env" "random_get" (func $of_another_module (;5;) (type $two)))
  (table $table (;0;) 1 funcref ref.func 8)
  (memory (;0;) 2)
  (memory (;1;) 16 16)
  (global $global (;0;) funcref ref.func 8)
  (export "memory" (memory 0))
  (export "read" (func 7))
  (export "vmsync1:cards" (memory 1))
  (elem (;0;) (i32.const 0) func 8 $fd_close)
  (elem (;1;) declare func 9)
  (func (;6;) (type 1) (param i32) (result i32)
    i32.const 3
    call $fd_close
    drop
    i32.const 0
    i32.const 1
    call $of_another_module
    drop
    i32.const 0
    i64.const 1
    call $of_another_type
    drop
    local.get 0
    i32.const 0
    i32.const 1
    call 8
    i32.store
    local.get 0
    i32.const 12
    i32.shr_u
    i32.const 1
    i32.store8 1
    ref.func 9
    drop
    local.get 0
    i32.const 16
    return_call 8
  )
  (func (;7;) (type 2) (param i32 i32 i32 i32) (result i32)
    (local i64 i64 i32)
    local.get 1
    i64.extend_i32_u
    local.get 2
    i64.extend_i32_u
    i64.const 8
    i64.mul
    i64.add
    local.tee 5
    memory.size
    i64.extend_i32_u
    i64.const 16
    i64.shl
    i64.gt_u
    local.get 2
    i32.const 1024
    i32.gt_u
    i32.or
    local.get 3
    i64.extend_i32_u
    local.get 5
    i64.lt_u
    local.get 3
    i64.extend_i32_u
    i64.const 4
    i64.add
    local.get 1
    i64.extend_i32_u
    i64.gt_u
    i32.and
    i32.or
    local.tee 6
    i32.eqz
    if ;; label = @1
      local.get 1
      i64.extend_i32_u
      local.set 4
      block ;; label = @2
        loop ;; label = @3
          local.get 4
          local.get 5
          i64.ge_u
          br_if 1 (;@2;)
          local.get 6
          local.get 4
          i32.wrap_i64
          i64.load32_u
          local.get 5
          i64.lt_u
          local.get 4
          i32.wrap_i64
          i64.load32_u
          local.get 4
          i32.wrap_i64
          i64.load32_u offset=4
          i64.add
          local.get 1
          i64.extend_i32_u
          i64.gt_u
          i32.and
          i32.or
          local.set 6
          local.get 4
          i64.const 8
          i64.add
          local.set 4
          br 0 (;@3;)
        end
      end
    end
    local.get 6
    if ;; label = @1
      i64.const 0
      i64.const 4294967295
      call 10
    else
      local.get 1
      i64.extend_i32_u
      local.set 4
      block ;; label = @2
        loop ;; label = @3
          local.get 4
          local.get 5
          i64.ge_u
          br_if 1 (;@2;)
          local.get 4
          i32.wrap_i64
          i64.load32_u
          local.get 4
          i32.wrap_i64
          i64.load32_u
          local.get 4
          i32.wrap_i64
          i64.load32_u offset=4
          i64.add
          i64.const 1
          i64.sub
          call 10
          local.get 4
          i64.const 8
          i64.add
          local.set 4
          br 0 (;@3;)
        end
      end
    end
    local.get 3
    i64.extend_i32_u
    local.get 3
    i64.extend_i32_u
    i64.const 4
    i64.add
    i64.const 1
    i64.sub
    call 10
    local.get 0
    local.get 1
    local.get 2
    local.get 3
    call $fd_read
    local.get 6
    if ;; label = @1
      i64.const 0
      i64.const 4294967295
      call 10
    else
      local.get 1
      i64.extend_i32_u
      local.set 4
      block ;; label = @2
        loop ;; label = @3
          local.get 4
          local.get 5
          i64.ge_u
          br_if 1 (;@2;)
          local.get 4
          i32.wrap_i64
          i64.load32_u
          local.get 4
          i32.wrap_i64
          i64.load32_u
          local.get 4
          i32.wrap_i64
          i64.load32_u offset=4
          i64.add
          i64.const 1
          i64.sub
          call 10
          local.get 4
          i64.const 8
          i64.add
          local.set 4
          br 0 (;@3;)
        end
      end
    end
    local.get 3
    i64.extend_i32_u
    local.get 3
    i64.extend_i32_u
    i64.const 4
    i64.add
    i64.const 1
    i64.sub
    call 10
  )
  (func (;8;) (type $two) (param i32 i32) (result i32)
    (local i64 i64 i32)
    local.get 0
    i64.extend_i32_u
    local.get 0
    i64.extend_i32_u
    local.get 1
    i64.extend_i32_u
    i64.const 1
    i64.mul
    i64.add
    i64.const 1
    i64.sub
    call 10
    local.get 0
    local.get 1
    call $random_get
    local.get 0
    i64.extend_i32_u
    local.get 0
    i64.extend_i32_u
    local.get 1
    i64.extend_i32_u
    i64.const 1
    i64.mul
    i64.add
    i64.const 1
    i64.sub
    call 10
  )
  (func (;9;) (type $two) (param i32 i32) (result i32)
    (local i64 i64 i32)
    i64.const 0
    i64.const 4294967295
    call 10
    local.get 0
    local.get 1
    call $args_get
    i64.const 0
    i64.const 4294967295
    call 10
  )
  (func (;10;) (type 4) (param i64 i64)
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
