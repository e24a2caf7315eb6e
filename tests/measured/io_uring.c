/* Waits for completions of io_uring, one at a time: of 503 direct reads of a file, of 31 bytes from a socket, or of 31
   timeouts.

       io_uring read|receive|timeout FILE

   It says a line when it is ready, and begins when a byte comes. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define COUNT 31
#define READS 503 /* each waits for less than a millisecond: enough of them that some are sampled */
#define PARTS 61
#define SIZE 65536

int main(int count, char **argument)
{
	struct io_uring_params params = { 0 };
	struct __kernel_timespec pause = { 0, 10000000 };
	int ring = syscall(SYS_io_uring_setup, 4, &params), file = open(argument[2], O_RDONLY | O_DIRECT), sockets[2];
	char *queue = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	struct io_uring_sqe *entries = mmap(0, params.sq_entries * sizeof(*entries), PROT_READ | PROT_WRITE,
					    MAP_SHARED, ring, IORING_OFF_SQES);
	unsigned *tail = (void *)(queue + params.sq_off.tail), *array = (void *)(queue + params.sq_off.array);
	unsigned *head = (void *)(queue + params.cq_off.head);
	char *buffer = aligned_alloc(4096, SIZE);

	if (ring < 0 || queue == MAP_FAILED || file < 0)
		return 1;
	socketpair(AF_UNIX, SOCK_STREAM, 0, sockets);
	puts("ready");
	fflush(stdout);
	getchar();
	if (argument[1][2] == 'c' && fork() == 0) {
		for (int i = 0; i < COUNT; i++) {
			usleep(10000);
			write(sockets[1], "x", 1);
		}
		_exit(0);
	}
	for (int i = 0; i < (argument[1][2] == 'a' ? READS : COUNT); i++) {
		unsigned at = *tail & (params.sq_entries - 1);
		struct io_uring_sqe *entry = &entries[at];

		memset(entry, 0, sizeof(*entry));
		entry->addr = (uint64_t)buffer;
		if (argument[1][0] == 't') {
			entry->opcode = IORING_OP_TIMEOUT;
			entry->addr = (uint64_t)&pause;
			entry->len = 1;
		} else if (argument[1][2] == 'c') {
			entry->opcode = IORING_OP_RECV;
			entry->fd = sockets[0];
			entry->len = 1;
		} else {
			entry->opcode = IORING_OP_READ;
			entry->fd = file;
			entry->len = SIZE;
			entry->off = (uint64_t)(i % PARTS) * SIZE;
		}
		array[at] = at;
		__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
		syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0);
		__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	}
	return 0;
}
