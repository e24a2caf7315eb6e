// Takes mutexes in the given orders, one thread after the other: each argument is the order of a thread, as "ab" for
// a, then b; a capital letter is a recursive mutex, and a dot before it tries instead of waiting.
//   new       the memory of a is a new mutex's from here on
//   wait      holds a and b, and waits for a condition of a's
//   seekN     moves the position of a file N times: descriptors share it, so each call takes its mutex in the kernel
//   deadlock  takes ab and ba in two threads that wait for each other, and leaves them there
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t mutexes[128];
static pthread_barrier_t both;
static int meet;

__attribute__((noinline)) static void take(int name, int try)
{
	if (try)
		pthread_mutex_trylock(&mutexes[name]);
	else
		pthread_mutex_lock(&mutexes[name]);
}

static void *in_order(void *names)
{
	char held[16] = {};
	int count = 0;

	for (const char *at = names; *at; at++) {
		int try = *at == '.';

		at += try;
		take(*at, try);
		held[count++] = *at;
		if (meet && count == 1)
			pthread_barrier_wait(&both);
	}
	while (count)
		pthread_mutex_unlock(&mutexes[(int)held[--count]]);
	return NULL;
}

static void *wait_for_condition(void *unused)
{
	pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
	struct timespec past = { .tv_sec = 1 };

	take('a', 0);
	take('b', 0);
	pthread_cond_timedwait(&condition, &mutexes['a'], &past);
	pthread_mutex_unlock(&mutexes['b']);
	pthread_mutex_unlock(&mutexes['a']);
	return unused;
}

static void seek(int times)
{
	int fd = dup(open("/dev/shm", O_TMPFILE | O_RDWR, 0600));

	while (times--)
		lseek(fd, 0, SEEK_SET);
}

static void run(void *(*code)(void *), void *argument)
{
	pthread_t thread;

	pthread_create(&thread, NULL, code, argument);
	if (meet)
		pthread_detach(thread);
	else
		pthread_join(thread, NULL);
}

int main(int count, char **arguments)
{
	pthread_mutexattr_t recursive;

	pthread_mutexattr_init(&recursive);
	pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
	for (int name = 'A'; name <= 'Z'; name++)
		pthread_mutex_init(&mutexes[name], &recursive);
	pthread_barrier_init(&both, NULL, 2);
	puts("");
	fflush(stdout);
	getchar();
	for (int i = 1; i < count; i++) {
		if (!strcmp(arguments[i], "new")) {
			pthread_mutex_destroy(&mutexes['a']);
			pthread_mutex_init(&mutexes['a'], NULL);
		} else if (!strcmp(arguments[i], "wait")) {
			run(wait_for_condition, NULL);
		} else if (!strncmp(arguments[i], "seek", 4)) {
			seek(atoi(arguments[i] + 4));
		} else if (!strcmp(arguments[i], "deadlock")) {
			meet = 1;
			run(in_order, "ab");
			run(in_order, "ba");
			sleep(1);
		} else {
			run(in_order, arguments[i]);
		}
	}
	return 0;
}
