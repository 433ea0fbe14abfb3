/* An engine with no model: `engine SOCKET PORT PACE_US` answers OpenAI's requests at a unix socket and at a port of
   loopback. A request without "stream":true gets one fixed body; a stream gets an event every PACE_US (or pace_us, where
   it says so), as many as its max_tokens say, with llama.cpp's timings in each where they are asked for, and usage at its
   end. One thread, epoll. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define FILES 16384
#define BYTES 65536
#define WORDS 32

typedef struct { int fd, have, left, said, timings, pace; long next; char *text; } Peer;
static Peer *peers[FILES];
static int streaming[FILES], streams, pace, loop_fd;

static long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static int say(int fd, const char *text, int size) {
    while (size > 0) {
        int sent = send(fd, text, size, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN) return -1;
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            poll(&wait, 1, 1000);
            continue;
        }
        text += sent;
        size -= sent;
    }
    return 0;
}

static void leave(Peer *peer) {
    for (int i = 0; i < streams; i++)
        if (streaming[i] == peer->fd) { streaming[i] = streaming[--streams]; break; }
    peers[peer->fd] = 0;
    close(peer->fd);
    free(peer->text);
    free(peer);
}

/* The next event of a stream: 1 where it was the last, -1 where nobody listens. */
static int event(Peer *peer) {
    char body[1024], framed[1200], timings[256] = "";
    const char *head = "\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"words\"";
    int size, last = peer->left-- == 0;
    if (peer->timings)
        sprintf(timings, ",\"timings\":{\"cache_n\":0,\"prompt_n\":9,\"prompt_ms\":12.5,\"prompt_per_token_ms\":1.39,"
                "\"prompt_per_second\":720.0,\"predicted_n\":%d,\"predicted_ms\":%d.5,\"predicted_per_token_ms\":10.0,"
                "\"predicted_per_second\":100.0}", peer->said, peer->said * 10);
    if (last)
        size = sprintf(body, "data: {%s,\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":%d,"
                       "\"total_tokens\":%d}}\n\ndata: [DONE]\n\n", head, peer->said, peer->said + 9);
    else
        size = sprintf(body, "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":\"word \"}}],"
                       "%s%s}\n\n", head, timings);
    peer->said++;
    int framed_size = sprintf(framed, "%x\r\n%s\r\n%s", size, body, last ? "0\r\n\r\n" : "");
    if (say(peer->fd, framed, framed_size)) return -1;
    return last;
}

static int number(const char *text, int size, const char *name, int otherwise) {
    const char *at = memmem(text, size, name, strlen(name));
    return at ? atoi(at + strlen(name)) : otherwise;
}

/* Answer every whole request that has come: -1 where the connection is to go. */
static int answer(Peer *peer) {
    char reply[2048], body[1024];
    while (!peer->left) {
        char *end = memmem(peer->text, peer->have, "\r\n\r\n", 4);
        if (!end) return peer->have >= BYTES - 1 ? -1 : 0;
        int head = end - peer->text + 4;
        *end = 0;
        char *said = strcasestr(peer->text, "content-length:");
        int length = said ? atoi(said + 15) : 0;
        *end = '\r';
        if (peer->have < head + length) return 0;
        const char *asked = peer->text + head;
        int stream = memmem(asked, length, "\"stream\":true", 13) || memmem(asked, length, "\"stream\": true", 14);
        peer->timings = memmem(asked, length, "\"timings_per_token\":true", 24) != 0;
        int tokens = number(asked, length, "\"max_tokens\":", WORDS);
        peer->pace = number(asked, length, "\"pace_us\":", pace);
        memmove(peer->text, peer->text + head + length, peer->have - head - length);
        peer->have -= head + length;
        if (stream) {
            const char *begin = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            if (say(peer->fd, begin, strlen(begin))) return -1;
            peer->left = tokens;
            peer->said = 0;
            peer->next = now_us() + peer->pace;
            streaming[streams++] = peer->fd;
            return 0;
        }
        int size = sprintf(body, "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":"
                           "\"words\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hello there,"
                           " how may I help you today? This answer is always the same and has about thirty tokens.\"},"
                           "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":30,"
                           "\"total_tokens\":39}}");
        int whole = sprintf(reply, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
                            size, body);
        if (say(peer->fd, reply, whole)) return -1;
    }
    return 0;
}

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(loop_fd, EPOLL_CTL_ADD, fd, &event);
}

static int listening(struct sockaddr *at, socklen_t size) {
    int one = 1, fd = socket(at->sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, at, size) || listen(fd, 4096)) { perror("engine"); exit(1); }
    watch(fd);
    return fd;
}

static void meet(int on) {
    int one = 1, fd = accept4(on, 0, 0, SOCK_NONBLOCK);
    if (fd < 0) return;
    if (fd >= FILES) { close(fd); return; }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    Peer *peer = calloc(1, sizeof *peer);
    peer->fd = fd;
    peer->text = malloc(BYTES);
    peers[fd] = peer;
    watch(fd);
}

static void hear(Peer *peer) {
    int got = read(peer->fd, peer->text + peer->have, BYTES - 1 - peer->have);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) { leave(peer); return; }
    peer->have += got;
    if (!peer->left && answer(peer) < 0) leave(peer);
}

static void go_on(void) {
    long now = now_us();
    for (int i = 0; i < streams;) {
        Peer *peer = peers[streaming[i]];
        if (peer->next > now) { i++; continue; }
        peer->next += peer->pace;
        int ended = event(peer);
        if (!ended) { i++; continue; }
        streaming[i] = streaming[--streams];
        peer->left = 0;
        if (ended < 0 || answer(peer) < 0) leave(peer);
    }
}

int main(int count, char **words) {
    if (count != 4) return 2;
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1000);
    loop_fd = epoll_create1(0);
    pace = atoi(words[3]);
    struct sockaddr_un door = {.sun_family = AF_UNIX};
    snprintf(door.sun_path, sizeof door.sun_path, "%s", words[1]);
    struct sockaddr_in port = {
        .sin_family = AF_INET, .sin_port = htons(atoi(words[2])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on_port = listening((void *)&port, sizeof port), on_door = listening((void *)&door, sizeof door);
    struct epoll_event events[256];
    for (;;) {
        long wait = -1, now = now_us();
        for (int i = 0; i < streams; i++) {
            long until = peers[streaming[i]]->next - now;
            if (until < 0) until = 0;
            if (wait < 0 || until < wait) wait = until;
        }
        int ready = epoll_wait(loop_fd, events, 256, wait < 0 ? -1 : (int)(wait / 1000));
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == on_port || fd == on_door) meet(fd);
            else if (peers[fd]) hear(peers[fd]);
        }
        if (streams) go_on();
    }
}
