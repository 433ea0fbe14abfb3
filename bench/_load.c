/* The clients: `load PORT CLIENTS COUNT FILE` sends FILE (a whole request) COUNT times over CLIENTS kept connections,
   each its next as soon as it has an answer; `load PORT CLIENTS -SECONDS FILE` reads streams for so long, each
   connection its next when one has ended. Prints one line of JSON: requests or events, seconds, microseconds at p50 and
   p99 of requests, and how many answers were no 200. One thread, epoll. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BYTES 65536

typedef struct { int fd, have, open; long began; char *text; } Client;
static int loop_fd, port, asked_size;
static char *asked;
static long sent, wanted, answered, events, bad;
static unsigned *took;

static long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void come(Client *client) {
    int one = 1;
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    client->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(client->fd, (void *)&at, sizeof at)) die("connect");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    epoll_ctl(loop_fd, EPOLL_CTL_ADD, client->fd, &event);
    client->open = 1;
}

static void ask(Client *client) {
    if (!client->open) come(client);
    client->have = 0;
    client->began = now_us();
    sent++;
    if (send(client->fd, asked, asked_size, MSG_NOSIGNAL) != asked_size) die("send");
}

static void leave(Client *client) {
    close(client->fd);
    client->open = 0;
}

/* How long the answer is that begins the text; 0 while that is not known. */
static int whole(Client *client) {
    char *end = memmem(client->text, client->have, "\r\n\r\n", 4);
    if (!end) return 0;
    *end = 0;
    char *length = strcasestr(client->text, "content-length:");
    int chunked = strcasestr(client->text, "transfer-encoding: chunked") != 0;
    *end = '\r';
    if (length) return end - client->text + 4 + atoi(length + 15);
    if (!chunked) die("an answer without a length");
    char *last = memmem(end, client->have - (end - client->text), "\r\n0\r\n\r\n", 7);
    return last ? (int)(last - client->text) + 7 : 0;
}

static void good(Client *client) {
    if (memcmp(client->text, "HTTP/1.1 200", 12)) {
        if (!bad++) fprintf(stderr, "%.300s\n", client->text);
    }
}

static void request(Client *client) {
    int size = whole(client);
    if (!size || client->have < size) return;
    good(client);
    took[answered++] = now_us() - client->began;
    if (sent < wanted) ask(client);
}

/* Counts events, and keeps what may be the beginning of one. */
static void stream(Client *client) {
    char *at = client->text, *end = client->text + client->have, *found;
    int done = 0;
    while ((found = memmem(at, end - at, "data: ", 6))) {
        if (end - found < 12) break;
        if (!memcmp(found + 6, "[DONE]", 6)) done = 1;
        else events++;
        at = found + 6;
    }
    int keep = end - at > 11 ? 11 : end - at;
    memmove(client->text, end - keep, keep);
    client->have = keep;
    if (!done) return;
    answered++;
    leave(client);
    ask(client);
}

static int smaller(const void *a, const void *b) {
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return (x > y) - (x < y);
}

int main(int count, char **words) {
    if (count != 5) return 2;
    port = atoi(words[1]);
    int clients = atoi(words[2]);
    wanted = atol(words[3]);
    FILE *file = fopen(words[4], "rb");
    if (!file) die(words[4]);
    asked = malloc(BYTES);
    asked_size = fread(asked, 1, BYTES, file);
    loop_fd = epoll_create1(0);
    took = calloc(wanted > 0 ? wanted : 1, sizeof *took);
    Client *all = calloc(clients, sizeof *all);
    long began = now_us(), until = wanted > 0 ? 0 : began - wanted * 1000000L;
    for (int i = 0; i < clients; i++) {
        all[i].text = malloc(BYTES);
        ask(&all[i]);
        if (until) usleep(10000 / clients + 1);
    }
    struct epoll_event ready[256];
    while (until ? now_us() < until : answered < wanted) {
        int some = epoll_wait(loop_fd, ready, 256, 1000);
        for (int i = 0; i < some; i++) {
            Client *client = ready[i].data.ptr;
            int first = client->have == 0 && until;
            int got = read(client->fd, client->text + client->have, BYTES - 1 - client->have);
            if (got <= 0) { bad++; leave(client); ask(client); continue; }
            client->have += got;
            if (first && client->have > 12) good(client);
            if (until) stream(client);
            else request(client);
        }
    }
    double seconds = (now_us() - began) / 1e6;
    qsort(took, until ? 0 : answered, sizeof *took, smaller);
    printf("{\"answers\":%ld,\"events\":%ld,\"seconds\":%f,\"p50_us\":%u,\"p99_us\":%u,\"bad\":%ld}\n", answered, events,
           seconds, until ? 0 : took[answered / 2], until ? 0 : took[answered * 99 / 100], bad);
    return 0;
}
