// requests.c - a thread, or a process, for each request: one begins every millisecond and sleeps for twenty.
// It says how long the longest of them lived, by its own clock, in ms.

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double longest_ms;

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void *request(void *unused)
{
	double lived_ms = now_ms();

	(void)unused;
	usleep(20000);
	lived_ms = now_ms() - lived_ms;
	if (lived_ms > longest_ms)
		longest_ms = lived_ms;
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_attr_t small;
	pthread_t thread;
	char line[2];

	(void)argc;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
	puts("ready");
	fflush(stdout);
	for (double end = now_ms() + 1500; now_ms() < end; usleep(1000)) {
		if (!strcmp(argv[1], "threads")) {
			pthread_create(&thread, &small, request, NULL);
		} else if (!fork()) {
			usleep(20000);
			_exit(0);
		}
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	usleep(100000);
	printf("%f\n", longest_ms);
	fflush(stdout);
	return !fgets(line, sizeof(line), stdin);
}
