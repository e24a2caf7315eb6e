"""Lists which kernel functions wait for what: the table behind the ledger's categories.

An entry is a whole name, or ends in `*` and matches all names that begin so; the longest entry that matches counts.
Names differ between kernels: those of 5.10 to 7.2 are listed together, without the compiler's suffixes (`.isra.0`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

ANYWHERE: Mapping[str, str] = MappingProxyType(
    {
        "disk": """
            folio_wait_* __folio_lock* folio_lock* wait_on_page_* __lock_page* lock_page* filemap_* __filemap_*
            read_pages wait_on_buffer __wait_on_buffer __lock_buffer __bread* __sync_dirty_buffer sync_* ksys_sync
            __iterate_supers writeback_* wb_* wait_sb_inodes __wait_on_freeing_inode find_inode* inode_* __inode_*
            balance_dirty_pages* dio_* __blockdev_direct_IO do_blockdev_direct_IO iomap_* __iomap_* read_events aio_*
            exit_aio do_io_getevents bio_* submit_bio* blk_* __blk_* blkdev_* __blkdev_* blkcg_* blkg_* bdev_*
            sync_blockdev* rq_qos_* wbt_* scsi_* nvme_* ata_* mmc_* loop_* lo_* nbd_* rbd_* zram_* dquot_* dqput*
            dqget do_quotactl* dm_* __dm_* crypt_* thin_* pool_* md_* mddev_* raid1_* raid10_* raid5_* wait_barrier
            wait_read_barrier freeze_array regular_request_wait new_read bitmap_* bch_* bch2_* cached_dev_* jbd2_*
            log_wait_commit start_this_handle wait_transaction_locked add_transaction_credits do_get_write_access
            ext2_* ext4_* __ext4_* xfs_* xlog_* btrfs_* __btrfs_* wait_log_commit wait_current_trans wait_for_commit
            start_transaction handle_reserve_ticket wait_reserve_ticket wait_extent_bit lock_extent*
            read_extent_buffer* f2fs_* ovl_* erofs_* squashfs_* isofs_* fat_* exfat_* ntfs_* udf_* nilfs_* ubifs_*
            ecryptfs_* gfs2_* ocfs2_* zfs_* zil_* zio_* txg_* dmu_* spa_* arc_* dlm_* fuse_* __fuse_*
            request_wait_answer virtio_fs_* nfs_* nfs3_* nfs4_* __nfs* nfsd_* rpc_* __rpc_* xprt_* cifs_* smb2_*
            SMB2_* smb3_* smb_* wait_for_response wait_for_free_credits wait_for_free_request compound_send_recv p9_*
            v9fs_* ceph_* __ceph_* ceph_mdsc_* afs_* netfs_* fscache_* cachefiles_*
        """,
        "network": """
            sk_* __sk_* sock_* __sock_* lock_sock* __lock_sock* release_sock inet_* inet6_* __inet_* tcp_* __tcp_*
            udp_* udpv6_* raw_* rawv6_* packet_* skb_* __skb_* unix_* __unix_* netlink_* vsock_* virtio_transport_*
            mptcp_* sctp_* smc_* tipc_* rds_* rxrpc_* l2cap_* bt_* rfcomm_* can_* isotp_* kcm_* tls_* xsk_* x25_*
            svc_* tun_* ppp_* datagram_poll __sys_accept4 do_accept __sys_connect
        """,
        "futex/lock": """
            futex_* __futex* do_futex fcntl_setlk* do_lock_file_wait posix_lock_* flock_lock* locks_lock*
            __break_lease nlmclnt_* nlmsvc_* __do_sys_flock
        """,
        "sleep": """
            hrtimer_nanosleep common_nsleep* alarm_timer_nsleep alarmtimer_* do_sigtimedwait sigsuspend __do_sys_pause
            __x64_sys_pause __ia32_sys_pause sys_pause msleep*
        """,
        "poll": """
            poll_schedule_timeout do_sys_poll do_poll do_select core_sys_select do_epoll_wait ep_* epoll_*
            io_cqring_wait* __io_cqring_wait* io_wqe_worker io_wq_worker io_sq_thread kvm_* perf_poll
        """,
        "pipe": """
            pipe_* anon_pipe_* wait_for_partner fifo_open ipipe_prep* opipe_prep* wait_for_space splice_from_pipe*
            vmsplice_*
        """,
        "wait_child": """
            do_wait do_wait_thread kernel_wait* __do_wait wait_task_* wait_for_vfork_done kernel_clone _do_fork
            do_fork de_thread zap_pid_ns_processes call_usermodehelper_exec* coredump_wait
        """,
        "page_fault/memory": """
            do_swap_page filemap_fault* swap_readpage swap_read_* __read_swap_cache* read_swap_cache* swapin_* swap_*
            handle_userfault handle_mm_fault __handle_mm_fault mem_cgroup_* try_charge* shrink_* try_to_free*
            try_to_compact* reclaim_* do_try_to_free* throttle_direct_reclaim throttle_vm_writeout __alloc_pages_slow*
            out_of_memory oom_* compact_* congestion_wait wait_iff_congested migration_entry_wait* migrate_pages*
            folio_put_wait_locked put_and_wait_on_page_locked softleaf_* pmd_migration_* hugetlb_* wait_on_page_fault
            userfaultfd_release mmu_notifier_*
        """,
        "kernel_lock": """
            synchronize_* __synchronize_* sync_rcu_* sync_rcu_* wait_rcu_gp* __wait_rcu_gp* rcu_* srcu_* membarrier_*
            percpu_rwsem_* __percpu_* percpu_down_* mutex_* __mutex_* rwsem_* down_* __down* rt_mutex_* ww_mutex_*
            __ww_mutex_* stop_machine* stop_cpus* __stop_cpus* stop_one_cpu* stop_two_cpus* affine_move_task
            __set_cpus_allowed* sched_exec cpus_read_lock cpu_hotplug_* cgroup_* cpuset_* lru_add_drain*
            __lru_add_drain* static_key_* text_poke* smp_call_* freeze_super* super_lock* grab_super* rtnl_*
            load_module idempotent_* request_module __request_module kthread_stop kthread_park sched_core_* exec_mmap
            begin_new_exec unregister_netdevice*
        """,
        "stopped": """
            do_signal_stop ptrace_stop ptrace_notify ptrace_do_notify do_jobctl_trap do_freezer_trap
            cgroup_enter_frozen cgroup_leave_frozen __refrigerator
        """,
        "terminal": "n_tty_* tty_* __tty_* pty_* do_tty_* vt_* con_* hvc_* uart_* ldsem_* __ldsem_* file_tty_*",
        "event": """
            eventfd_* timerfd_* signalfd_* inotify_* fanotify_* fsnotify_* userfaultfd_* devkmsg_* kmsg_read
            syslog_print* do_syslog* cachestat* wait_for_random_bytes
        """,
        "ipc": """
            do_semtimedop __do_semtimedop do_msgrcv do_msgsnd ksys_msg* ksys_sem* wq_sleep do_mq_* mq_* fuse_dev_*
            seccomp_* __seccomp_* binder_* wait_for_key_construction request_key* autofs_* process_vm_*
        """,
        "device": """
            drm_* dma_fence_* dma_resv_* i915_* amdgpu_* nvidia_* usb_* usbdev_* usbhid_* hid_* hidraw_* evdev_*
            input_* snd_* vb2_* v4l2_* i2c_* spi_* vfio_* ib_* uverbs_* rtc_* rng_* hwrng_* af_alg_* crypto_* ppdev_*
            uio_* watchdog_* tpm_*
        """,
        "throttled": "throttle_cfs_* task_throttle*",
    }
)
"""Category → functions that show it at any place in a stack: what is called from `ext4_rename` waits for ext4."""

INNERMOST: Mapping[str, str] = MappingProxyType(
    {
        "kernel_lock": """
            ext4_buffered_write_iter ext4_file_write_iter ext4_file_read_iter ext4_map_blocks ext4_fallocate
            xfs_ilock* xfs_buf_lock xfs_buf_find_lock btrfs_inode_lock btrfs_tree_lock* btrfs_tree_read_lock*
            __btrfs_tree_* btrfs_lock_root_node btrfs_read_lock_root_node ovl_write_iter ovl_fallocate ovl_copy_up_*
            fuse_file_write_iter generic_file_write_iter nfs_start_io_* netfs_start_io_* v9fs_fid_lookup do_renameat2
            lock_rename lock_two_nondirectories do_unlinkat do_rmdir do_mkdirat do_linkat do_symlinkat filename_create
            path_openat open_last_lookups lookup_slow __lookup_slow walk_component link_path_walk iterate_dir
            chmod_common chown_common do_truncate vfs_setxattr vfs_removexattr vfs_utimes notify_change vfs_fallocate
            vfs_llseek vfs_unlink vfs_rename vfs_rmdir vfs_mkdir simple_recursive_removal start_dirop __fdget_pos
            fdget_pos ksys_read ksys_write ksys_lseek f_lock_pos sync_inodes_sb sync_bdevs wb_switch* vm_mmap_pgoff
            __vm_munmap vm_munmap do_mprotect_pkey do_madvise* madvise_* do_brk_flags __do_sys_brk __x64_sys_brk
            __do_sys_mremap __do_sys_mincore mm_populate __mm_populate do_mlock* lock_mm_and_find_vma
            do_user_addr_fault do_page_fault exc_page_fault mmap_read_lock* mmap_write_lock* dup_mm dup_mmap
            copy_process exit_mm exit_mmap do_exit unmap_region get_user_pages* __get_user_pages* pin_user_pages*
            find_vma uprobe_* proc_pid_* m_start ptrace_attach bprm_execve prepare_bprm_creds do_open_execat __rtnl_*
            dev_ioctl rtnetlink_rcv_msg genl_rcv* pipe_lock pipe_double_lock console_lock do_fcntl kernfs_*
            seq_read_iter do_epoll_ctl
        """,
        "stopped": "get_signal",
        "event": "devkmsg_read",
    }
)
"""Category → functions that show it only where the thread left its CPU in them.

The kernel leaves the functions of its locks out of stacks and out of wchan: where a thread waits for a lock, the
innermost function is the one that takes it.
"""

LOCKS = """
    mutex_* __mutex_* ww_mutex_* __ww_mutex_* rwsem_* down_* __down* percpu_down_* __percpu_down* rt_mutex_*
    __rt_mutex*
"""
"""The functions of locks that sleep: where one is shown all the same, its caller shows whose lock it is."""

GENERIC = f"""
    {LOCKS} schedule schedule_* __schedule preempt_schedule* io_schedule* usleep_range* wait_for_completion*
    __wait_for_common do_wait_for_common wait_for_common wait_woken do_wait do_wait_intr do_wait_intr_irq
    __wait_on_bit* wait_on_bit* out_of_line_wait_on_bit* bit_wait* prepare_to_wait* finish_wait wait_event* swait_*
    __wait_event* freezable_schedule* __traceiter_* __bpf_trace* bpf_* __cond_resched do_nanosleep
    hrtimer_nanosleep_restart cv_wait* __cv_wait* ldsem_down_*
"""
"""Functions in which threads wait for all kinds of things: only their callers show for what."""

WEAK: Mapping[str, str] = MappingProxyType(
    {
        "disk": "io_schedule* bit_wait_io* wait_for_completion_io*",
        "sleep": "do_nanosleep hrtimer_nanosleep_restart",
        "wait_child": "do_wait",
    }
)
"""Category → generic functions that show it where no caller shows a more precise one."""

FAULTS = """
    exc_page_fault asm_exc_page_fault do_user_addr_fault do_page_fault __do_page_fault page_fault async_page_fault
    handle_mm_fault __handle_mm_fault faultin_page do_mem_abort do_translation_fault __do_kernel_fault
"""
"""Functions of page faults: a wait with one of these in its stack belongs to a page fault."""

KERNEL_THREADS = "ret_from_fork ret_from_fork_asm kthread io_wq_worker io_wqe_worker io_sq_thread"
"""Functions at the root of a kernel thread's stack: it makes no system calls, and its waits are no page faults."""
