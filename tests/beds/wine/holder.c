/* Has a file open without sharing it, as some virus scanners and backup programs do, until a line or the end of input comes. */
#include <stdio.h>
#include <windows.h>

int main(int count, char **words) {
    HANDLE file = CreateFileA(count > 1 ? words[1] : "", GENERIC_READ, 0, NULL, OPEN_EXISTING, 0, NULL);
    if (file == INVALID_HANDLE_VALUE) {
        printf("error %lu\n", GetLastError());
        return 1;
    }
    puts("held");
    fflush(stdout);
    getchar();
    return 0;
}
