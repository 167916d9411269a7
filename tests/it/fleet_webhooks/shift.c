/* Moves the wall clock of one process by as many seconds as the file named by SHIFT_FILE says: nobody waits a quarter of an
   hour for a Director to count as silent, nor a week for metadata to expire. Monotonic clocks stay. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *out)
{
    static int (*real)(clockid_t, struct timespec *);
    const char *name = getenv("SHIFT_FILE");
    long by = 0;
    FILE *file;
    int said;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    said = real(id, out);
    if (said == 0 && id == CLOCK_REALTIME && name && (file = fopen(name, "r"))) {
        if (fscanf(file, "%ld", &by) == 1)
            out->tv_sec += by;
        fclose(file);
    }
    return said;
}
