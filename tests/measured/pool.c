// pool.c - threads that are always runnable, more than there are CPUs.

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *work(void *unused)
{
	(void)unused;
	for (;;)
		;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	(void)argc;
	alarm(30);
	for (int i = atoi(argv[1]); i > 0; i--)
		pthread_create(&thread, NULL, work, NULL);
	puts("ready");
	fflush(stdout);
	pause();
}
