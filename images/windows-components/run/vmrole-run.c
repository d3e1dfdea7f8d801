// SPDX-License-Identifier: Apache-2.0
// What the harness starts steps through in a Windows guest (docs/windows-guest.md): a program with its verbatim command
// line, its folder, environment and standard input; its streams forwarded, stored and capped; it and all it started
// ended at its time-out; and what else happened told after a nonce on standard error.
//
//   run       the job comes on standard input, see `struct job`; exits with the program's own 32-bit code
//   receive   files come on standard input: lines "SIZE PATH", each followed by SIZE bytes
//   send PATH LIMIT             the first LIMIT bytes of a file
//   collect LIMIT EACH FOLDER.. an archive (ustar) of the files in folders, at most LIMIT bytes, none larger than EACH;
//                               %NAME% in what is given are expanded
//   restarting                  0 when a restart of the system was asked for in this boot, else 1
//   where     lines "NAME<TAB>GLOB..." on standard input; prints "NAME<TAB>PATH" of what was found
//
// Texts are UTF-8. Exit code of failures of our own: 1, with one sentence on standard error.

#include <windows.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "mark.h"
#include "start.h"

#define BEGUN L"C:\\ProgramData\\VMRole\\begun"
#define RESTARTING L"C:\\ProgramData\\VMRole\\restarting"
#define LOG L"C:\\Windows\\vmrole-unavailable.log"
// Where Wine says what it cannot do; a path that Windows does not have.
#define WINE_LOG L"\\\\?\\unix\\run\\vmrole\\standin.log"
#define STANDBY L"C:\\Windows\\vmrole-standby.log" // of the engines that took a command line
#define MOST_TOLD 20
#define MOST_SAID 65536
#define MOST_WATCHED 5000
#define DRAIN_MS 1000
#define STILL_MS 250
#define KILL_MS 10000
#define FAR_OFF 60 // seconds: a restart that is announced for later is not awaited
#define MOST_EVENTS 500

// Events of source User32 in the log System: a shutdown was asked for, and one was called off.
enum { ASKED_FOR = 1074, CALLED_OFF = 1075 };

struct text {
	char *data;
	size_t size;
};

struct list {
	wchar_t **items;
	size_t count;
};

static HANDLE out, err;
static const char *nonce = ""; // begins every line that is told of a job

static void *need(void *memory)
{
	if (!memory)
		ExitProcess(1);
	return memory;
}

static bool put(HANDLE to, const void *data, size_t size)
{
	const char *at = data;
	while (size) {
		DWORD done, part = size > 65536 ? 65536 : (DWORD)size;
		if (!WriteFile(to, at, part, &done, NULL))
			return false;
		at += done;
		size -= done;
	}
	return true;
}

static wchar_t *wide(const char *utf8)
{
	int size = MultiByteToWideChar(CP_UTF8, 0, utf8, -1, NULL, 0);
	wchar_t *text = need(calloc(size + 1, sizeof *text));
	MultiByteToWideChar(CP_UTF8, 0, utf8, -1, text, size);
	return text;
}

static char *utf8(const wchar_t *text)
{
	int size = WideCharToMultiByte(CP_UTF8, 0, text, -1, NULL, 0, NULL, NULL);
	char *bytes = need(calloc(size + 1, 1));
	WideCharToMultiByte(CP_UTF8, 0, text, -1, bytes, size, NULL, NULL);
	return bytes;
}

static void fail(const char *what, const wchar_t *with, DWORD code)
{
	char line[512];
	char *name = with ? utf8(with) : "";
	if (*nonce) {
		put(err, nonce, strlen(nonce));
		put(err, " failed=", 8);
	}
	if (code)
		snprintf(line, sizeof line, "%.300s%s%.120s (error %lu)\n", name, *name ? " " : "", what,
			 (unsigned long)code);
	else
		snprintf(line, sizeof line, "%.300s%s%.120s\n", name, *name ? " " : "", what);
	put(err, line, strlen(line));
	if (*nonce) {
		put(err, nonce, strlen(nonce));
		put(err, " end=0 0\n", 9);
	}
	ExitProcess(1);
}

static wchar_t *join(const wchar_t *a, const wchar_t *b, const wchar_t *c)
{
	size_t size = wcslen(a) + wcslen(b) + wcslen(c) + 1;
	wchar_t *text = need(calloc(size, sizeof *text));
	wcscpy(text, a);
	wcscat(text, b);
	wcscat(text, c);
	return text;
}

static void append(struct list *list, wchar_t *item)
{
	list->items = need(realloc(list->items, (list->count + 1) * sizeof *list->items));
	list->items[list->count++] = item;
}

static wchar_t *expanded(const wchar_t *text)
{
	DWORD size = ExpandEnvironmentStringsW(text, NULL, 0);
	wchar_t *result = need(calloc(size + 1, sizeof *result));
	ExpandEnvironmentStringsW(text, result, size + 1);
	return result;
}

static struct text all_of_input(void)
{
	HANDLE in = GetStdHandle(STD_INPUT_HANDLE);
	struct text text = {need(malloc(65537)), 0};
	size_t room = 65536;
	DWORD got;
	while (ReadFile(in, text.data + text.size, (DWORD)(room - text.size), &got, NULL) && got) {
		text.size += got;
		if (text.size == room) {
			room *= 2;
			text.data = need(realloc(text.data, room + 1));
		}
	}
	text.data[text.size] = 0;
	return text;
}

// Every folder above the file (or the folder, when it ends with a separator).
static void make_folders(const wchar_t *path)
{
	wchar_t *copy = join(path, L"", L"");
	for (wchar_t *at = copy; *at; at++)
		if ((*at == L'\\' || *at == L'/') && at > copy && at[-1] != L':') {
			wchar_t separator = *at;
			*at = 0;
			CreateDirectoryW(copy, NULL);
			*at = separator;
		}
	free(copy);
}

static HANDLE new_file(const wchar_t *path)
{
	make_folders(path);
	HANDLE file =
		CreateFileW(path, GENERIC_WRITE, FILE_SHARE_READ, NULL, CREATE_ALWAYS, FILE_ATTRIBUTE_NORMAL, NULL);
	if (file == INVALID_HANDLE_VALUE)
		fail("cannot be written", path, GetLastError());
	return file;
}

// ---- run

struct job {
	wchar_t *program;    // %NAME% in it are expanded; quoted at the beginning of the command line
	wchar_t *parameters; // the rest of the command line as it stands
	wchar_t *line;       // the whole command line, where there is no program
	wchar_t *folder;
	wchar_t *script; // where the first script_size bytes of the body are written, a batch file
	wchar_t *stdin_path;
	wchar_t *stdout_path;
	wchar_t *stderr_path;
	wchar_t *watch; // a folder whose new files are told
	wchar_t *user;  // another account to run as: DOMAIN\\NAME, NAME@DOMAIN or NAME
	wchar_t *password;
	struct list environment, folders, path;
	DWORD timeout;      // ms
	uint64_t most;      // bytes of each stream that are forwarded
	uint64_t most_kept; // and that are put into its file
	size_t script_size;
	struct text body; // the script, then what the program reads
};

static char *decoded(char *value)
{
	char *to = value;
	for (char *from = value; *from; from++) {
		unsigned byte;
		if (*from == '%' && sscanf(from + 1, "%2x", &byte) == 1) {
			*to++ = (char)byte;
			from += 2;
		} else
			*to++ = *from;
	}
	*to = 0;
	return value;
}

static struct job read_job(void)
{
	struct job job = {.timeout = INFINITE, .most = UINT64_MAX, .most_kept = UINT64_MAX};
	struct text text = all_of_input();
	char *at = text.data, *end = text.data + text.size;
	while (at < end) {
		char *stop = memchr(at, '\n', end - at);
		if (!stop)
			fail("the job is cut", NULL, 0);
		*stop = 0;
		char *key = at, *value = strchr(at, '=');
		at = stop + 1;
		if (!*key)
			break; // the body follows
		if (!value)
			fail("the job has a line without =", NULL, 0);
		*value++ = 0;
		decoded(value);
		if (!strcmp(key, "nonce"))
			nonce = value;
		else if (!strcmp(key, "program"))
			job.program = wide(value);
		else if (!strcmp(key, "parameters"))
			job.parameters = wide(value);
		else if (!strcmp(key, "line"))
			job.line = wide(value);
		else if (!strcmp(key, "folder"))
			job.folder = wide(value);
		else if (!strcmp(key, "script"))
			job.script = wide(value);
		else if (!strcmp(key, "script-size"))
			job.script_size = strtoull(value, NULL, 10);
		else if (!strcmp(key, "stdin"))
			job.stdin_path = wide(value);
		else if (!strcmp(key, "stdout"))
			job.stdout_path = wide(value);
		else if (!strcmp(key, "stderr"))
			job.stderr_path = wide(value);
		else if (!strcmp(key, "watch"))
			job.watch = wide(value);
		else if (!strcmp(key, "user"))
			job.user = wide(value);
		else if (!strcmp(key, "password"))
			job.password = wide(value);
		else if (!strcmp(key, "environment"))
			append(&job.environment, wide(value));
		else if (!strcmp(key, "make-folder"))
			append(&job.folders, wide(value));
		else if (!strcmp(key, "path"))
			append(&job.path, wide(value));
		else if (!strcmp(key, "timeout"))
			job.timeout = (DWORD)strtoul(value, NULL, 10);
		else if (!strcmp(key, "most"))
			job.most = strtoull(value, NULL, 10);
		else if (!strcmp(key, "most-kept"))
			job.most_kept = strtoull(value, NULL, 10);
		else
			fail("the job has a key that is not known", wide(key), 0);
	}
	job.body.data = at;
	job.body.size = end - at;
	if (job.script_size > job.body.size)
		fail("the job is cut", NULL, 0);
	return job;
}

static void tell(const char *key, const char *value)
{
	// In one piece: every write is a turn of its own between this and whoever reads.
	char *line = need(malloc(strlen(nonce) + strlen(key) + strlen(value) + 4));
	size_t size = (size_t)sprintf(line, "%s %s=%s", nonce, key, value);
	for (char *at = line; *at; at++)
		if (*at == '\n' || *at == '\r')
			*at = ' ';
	line[size++] = '\n';
	put(err, line, size);
	free(line);
}

static void tell_number(const char *key, unsigned long value)
{
	char text[24];
	snprintf(text, sizeof text, "%lu", value);
	tell(key, text);
}

// The last line: who does not see it did not get all. How much of both streams was forwarded tells what is missing
// in between.
static void tell_end(uint64_t of_out, uint64_t of_err)
{
	char text[48];
	snprintf(text, sizeof text, "%llu %llu", (unsigned long long)of_out, (unsigned long long)of_err);
	tell("end", text);
}

struct stream {
	HANDLE from, to, file;
	struct mark mark;
	uint64_t most, most_kept, forwarded;
	bool cut, full;
	SRWLOCK forwarding;
	volatile LONG moved; // bytes, which wrap
};

static DWORD within(uint64_t *most, DWORD size)
{
	DWORD part = size > *most ? (DWORD)*most : size;
	*most -= part;
	return part;
}

// What is beyond the caps is read, so that the program can go on, and dropped.
static BOOL give(void *to, const char *data, DWORD size)
{
	struct stream *stream = to;
	DWORD part = within(&stream->most, size), kept = within(&stream->most_kept, size);
	stream->cut |= part < size;
	if (stream->file && kept && !put(stream->file, data, kept)) {
		stream->full = true;
		CloseHandle(stream->file);
		stream->file = NULL;
	}
	AcquireSRWLockExclusive(&stream->forwarding);
	stream->forwarded += part;
	if (part)
		put(stream->to, data, part);
	ReleaseSRWLockExclusive(&stream->forwarding);
	InterlockedExchangeAdd(&stream->moved, (LONG)size);
	return TRUE;
}

static DWORD WINAPI forward(void *argument)
{
	struct stream *stream = argument;
	read_marked(&stream->mark, stream->from, give, stream);
	return 0;
}

// Waits for all that the program wrote itself, however slow the processor or the client is, and for the end of the
// streams, which what it left running may hold open: for that not long.
static void drain(struct stream *streams, const HANDLE *readers)
{
	for (int i = 0; i < 2; i++)
		write_mark(&streams[i].mark);
	for (int i = 0; i < 2; i++)
		WaitForSingleObject(streams[i].mark.passed, INFINITE);
	LONG seen[2] = {streams[0].moved, streams[1].moved};
	DWORD begun = GetTickCount(), last[2] = {begun - STILL_MS, begun - STILL_MS}, now = begun;
	while (WaitForMultipleObjects(2, readers, TRUE, 10) == WAIT_TIMEOUT) {
		now = GetTickCount();
		for (int i = 0; i < 2; i++)
			if (seen[i] != streams[i].moved) {
				last[i] = now;
				seen[i] = streams[i].moved;
			}
		if (now - begun < DRAIN_MS)
			continue;
		for (int i = 0; i < 2; i++)
			streams[i].cut |= now - last[i] < STILL_MS;
		return;
	}
}

struct feed {
	HANDLE to;
	struct text text;
};

static DWORD WINAPI feed(void *argument)
{
	struct feed *feed = argument;
	put(feed->to, feed->text.data, feed->text.size);
	CloseHandle(feed->to);
	return 0;
}

static void walk(const wchar_t *folder, struct list *found)
{
	WIN32_FIND_DATAW entry;
	wchar_t *pattern = join(folder, L"\\*", L"");
	HANDLE search = FindFirstFileW(pattern, &entry);
	free(pattern);
	if (search == INVALID_HANDLE_VALUE)
		return;
	do {
		if (!wcscmp(entry.cFileName, L".") || !wcscmp(entry.cFileName, L".."))
			continue;
		wchar_t *path = join(folder, L"\\", entry.cFileName);
		if (entry.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) {
			if (!(entry.dwFileAttributes & FILE_ATTRIBUTE_REPARSE_POINT))
				walk(path, found);
			free(path);
		} else
			append(found, path);
	} while (found->count < MOST_WATCHED && FindNextFileW(search, &entry));
	FindClose(search);
}

static int compare(const void *a, const void *b)
{
	return _wcsicmp(*(wchar_t *const *)a, *(wchar_t *const *)b);
}

static void sorted_files(const wchar_t *folder, struct list *found)
{
	if (folder)
		walk(folder, found);
	if (found->count)
		qsort(found->items, found->count, sizeof *found->items, compare);
}

static uint64_t log_size(const wchar_t *path)
{
	WIN32_FILE_ATTRIBUTE_DATA data;
	if (!GetFileAttributesExW(path, GetFileExInfoStandard, &data))
		return 0;
	return (uint64_t)data.nFileSizeHigh << 32 | data.nFileSizeLow;
}

// What was written to a log since it had `before` bytes, less than `most`.
static void read_log(const wchar_t *path, uint64_t before, char *data, DWORD most)
{
	DWORD share = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, got = 0;
	HANDLE file = CreateFileW(path, GENERIC_READ, share, NULL, OPEN_EXISTING, 0, NULL);
	if (file != INVALID_HANDLE_VALUE) {
		LARGE_INTEGER at = {.QuadPart = (LONGLONG)before};
		SetFilePointerEx(file, at, NULL, FILE_BEGIN);
		ReadFile(file, data, most - 1, &got, NULL);
		CloseHandle(file);
	}
	data[got] = 0;
}

// Whether Wine, which has none of the libraries that they need, said so of a 32-bit program.
static bool refused_32(uint64_t before)
{
	static char data[MOST_SAID];
	read_log(WINE_LOG, before, data, sizeof data);
	for (char *line = strtok(data, "\r\n"); line; line = strtok(NULL, "\r\n"))
		if (!strncmp(line, "wine: failed to ", 16) && strstr(line, "syswow64"))
			return true;
	return false;
}

static void tell_unavailable(uint64_t before)
{
	char data[4097];
	int told = 0;
	read_log(LOG, before, data, sizeof data);
	for (char *line = strtok(data, "\r\n"); line && told++ < MOST_TOLD; line = strtok(NULL, "\r\n"))
		tell("unavailable", line);
}

// The machine of a program file, 0 for what is no program: tells why one cannot be started.
static unsigned machine_of(const wchar_t *path)
{
	HANDLE file = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
	unsigned char head[4096];
	DWORD got = 0;
	if (file == INVALID_HANDLE_VALUE)
		return 0;
	ReadFile(file, head, sizeof head, &got, NULL);
	CloseHandle(file);
	if (got < 64 || head[0] != 'M' || head[1] != 'Z')
		return 0;
	uint32_t at = head[60] | head[61] << 8 | head[62] << 16 | (uint32_t)head[63] << 24;
	return at + 6 <= got && !memcmp(head + at, "PE\0\0", 4) ? head[at + 4] | head[at + 5] << 8u : 0;
}

static wchar_t *quoted(const wchar_t *program)
{
	return *program == L'"' ? join(program, L"", L"") : join(L"\"", program, L"\"");
}

static void set_environment(const struct job *job)
{
	for (size_t i = 0; i < job->environment.count; i++) {
		wchar_t *name = job->environment.items[i], *value = wcschr(name + 1, L'=');
		if (!value)
			continue;
		*value = 0;
		SetEnvironmentVariableW(name, value + 1);
	}
	for (size_t i = 0; i < job->path.count; i++) {
		wchar_t *before = expanded(L"%PATH%");
		wchar_t *after = join(before, L";", job->path.items[i]);
		SetEnvironmentVariableW(L"PATH", after);
	}
}

static bool is_relative(const wchar_t *path)
{
	return *path != L'\\' && *path != L'/' && path[1] != L':';
}

static void make_folders_of(const struct job *job, bool relative)
{
	for (size_t i = 0; i < job->folders.count; i++) {
		wchar_t *folder = expanded(job->folders.items[i]);
		if (is_relative(folder) == relative)
			make_folders(join(folder, L"\\", L""));
	}
}

static HANDLE input_of(const struct job *job, HANDLE *write_end)
{
	SECURITY_ATTRIBUTES inherited = {sizeof inherited, NULL, TRUE};
	HANDLE read_end;
	if (job->stdin_path) {
		wchar_t *path = expanded(job->stdin_path);
		HANDLE file = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ, &inherited, OPEN_EXISTING, 0, NULL);
		if (file == INVALID_HANDLE_VALUE)
			fail("cannot be read, which was to be standard input", path, GetLastError());
		return file;
	}
	if (!CreatePipe(&read_end, write_end, &inherited, 0))
		fail("no pipe can be made", NULL, GetLastError());
	SetHandleInformation(*write_end, HANDLE_FLAG_INHERIT, 0);
	return read_end;
}

static HANDLE output_of(const struct job *job, struct stream *stream, HANDLE to, const wchar_t *path)
{
	SECURITY_ATTRIBUTES inherited = {sizeof inherited, NULL, TRUE};
	HANDLE write_end;
	if (!CreatePipe(&stream->from, &write_end, &inherited, 0))
		fail("no pipe can be made", NULL, GetLastError());
	SetHandleInformation(stream->from, HANDLE_FLAG_INHERIT, 0);
	stream->to = to;
	stream->most = job->most;
	stream->most_kept = job->most_kept;
	stream->file = path ? new_file(expanded(path)) : NULL;
	if (!make_mark(&stream->mark, write_end))
		fail("no mark can be made", NULL, GetLastError());
	return write_end;
}

// Not our own streams: whoever reads them would wait for everything that the program leaves running.
static void keep_our_streams(void)
{
	SetHandleInformation(GetStdHandle(STD_INPUT_HANDLE), HANDLE_FLAG_INHERIT, 0);
	SetHandleInformation(out, HANDLE_FLAG_INHERIT, 0);
	SetHandleInformation(err, HANDLE_FLAG_INHERIT, 0);
}

static BOOL create(const struct job *job, wchar_t *line, DWORD flags, STARTUPINFOW *start, PROCESS_INFORMATION *process)
{
	if (job->user) {
		wchar_t *name = wcschr(job->user, L'\\'), *domain = L".";
		if (name) {
			*name++ = 0;
			domain = job->user;
		} else {
			name = job->user;
			if (wcschr(name, L'@'))
				domain = NULL; // it is in the name
		}
		// Without a block the user gets his own variables, and none of the job's, which are in ours by now.
		bool given = job->environment.count || job->path.count;
		wchar_t *block = given ? GetEnvironmentStringsW() : NULL;
		return CreateProcessWithLogonW(name, domain, job->password ? job->password : L"", LOGON_WITH_PROFILE,
					       NULL, line, flags & ~(DWORD)CREATE_BREAKAWAY_FROM_JOB, block, NULL,
					       start, process);
	}
	if (start_process(NULL, line, TRUE, flags, NULL, NULL, start, process))
		return TRUE;
	// The group of the remote shell does not let its processes go.
	return GetLastError() == ERROR_ACCESS_DENIED &&
	       start_process(NULL, line, TRUE, flags & ~(DWORD)CREATE_BREAKAWAY_FROM_JOB, NULL, NULL, start, process);
}

static void write_script(const struct job *job)
{
	HANDLE file = new_file(job->script);
	bool whole = put(file, job->body.data, job->script_size);
	DWORD why = GetLastError();
	CloseHandle(file);
	if (whole)
		return;
	DeleteFileW(job->script);
	fail("cannot be written", job->script, why);
}

// For whoever loses the connection now and has to know whether the step had begun. Best effort: the step comes first.
static void note_begun(void)
{
	DWORD done;
	HANDLE file = CreateFileW(BEGUN, GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL, CREATE_ALWAYS,
				  FILE_ATTRIBUTE_NORMAL | FILE_FLAG_WRITE_THROUGH, NULL);
	if (file == INVALID_HANDLE_VALUE)
		return;
	WriteFile(file, nonce, (DWORD)strlen(nonce), &done, NULL);
	CloseHandle(file);
}

// What Windows itself notes of it, the newest first. Times are seconds since 1970.
static bool asked_for_since(DWORD since)
{
	static DWORD buffer[16384];
	DWORD got, more, seen = 0;
	HANDLE log = OpenEventLogW(NULL, L"System");
	bool asked = false, over = !log;
	while (!over && ReadEventLogW(log, EVENTLOG_SEQUENTIAL_READ | EVENTLOG_BACKWARDS_READ, 0, buffer, sizeof buffer,
				      &got, &more)) {
		over = !got;
		for (DWORD at = 0; !over && at < got;) {
			const EVENTLOGRECORD *record = (const EVENTLOGRECORD *)((const char *)buffer + at);
			DWORD event = record->EventID & 0xFFFF;
			bool its = !_wcsicmp((const wchar_t *)(record + 1), L"User32");
			asked = its && event == ASKED_FOR && record->TimeGenerated >= since;
			over = asked || (its && event == CALLED_OFF) || record->TimeGenerated < since ||
			       ++seen == MOST_EVENTS;
			at += record->Length;
		}
	}
	if (log)
		CloseEventLog(log);
	return asked;
}

static DWORD seconds_now(void)
{
	FILETIME time;
	GetSystemTimeAsFileTime(&time);
	uint64_t ticks = (uint64_t)time.dwHighDateTime << 32 | time.dwLowDateTime;
	return (DWORD)(ticks / 10000000 - 11644473600ULL);
}

// Whether the system is about to restart: somebody asked for it since then. The stand-in has a file for that.
static bool restarts(DWORD since)
{
	char text[16] = "";
	DWORD got = 0;
	HANDLE file = CreateFileW(RESTARTING, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
				  NULL, OPEN_EXISTING, 0, NULL);
	if (file == INVALID_HANDLE_VALUE)
		return asked_for_since(since);
	bool is_read = ReadFile(file, text, sizeof text - 1, &got, NULL);
	CloseHandle(file);
	return is_read && strtoul(text, NULL, 10) <= FAR_OFF;
}

static int restarting(void)
{
	return restarts(seconds_now() - (DWORD)(GetTickCount64() / 1000)) ? 0 : 1;
}

static int run(void)
{
	DWORD begun = seconds_now();
	struct job job = read_job();
	keep_our_streams();
	set_environment(&job);
	// Before the working directory, which may be one of them, and after it those that begin there.
	make_folders_of(&job, false);
	if (job.folder) {
		wchar_t *folder = expanded(job.folder);
		// Also where a program without a path is looked for.
		if (!SetCurrentDirectoryW(folder)) {
			tell_number("no-folder", GetLastError());
			tell_end(0, 0);
			return 1;
		}
	}
	make_folders_of(&job, true);
	struct text input = {job.body.data + job.script_size, job.body.size - job.script_size};
	wchar_t *program = job.program ? expanded(job.program) : NULL, *line;
	if (job.script)
		line = join(L"cmd.exe /q /c \"", job.script, L"\"");
	else if (program)
		line = join(quoted(program), job.parameters ? L" " : L"", job.parameters ? job.parameters : L"");
	else
		line = job.line ? job.line : L"";

	struct list before = {0}, after = {0};
	sorted_files(job.watch, &before);
	uint64_t log = log_size(LOG), said = log_size(WINE_LOG), taken = log_size(STANDBY);

	static struct stream streams[2];
	static struct feed feeding;
	STARTUPINFOW start = {.cb = sizeof start, .dwFlags = STARTF_USESTDHANDLES};
	PROCESS_INFORMATION process;
	start.hStdInput = input_of(&job, &feeding.to);
	start.hStdOutput = output_of(&job, &streams[0], out, job.stdout_path);
	start.hStdError = output_of(&job, &streams[1], err, job.stderr_path);
	// Last of all that can fail: secrets are filled in, and nobody would remove it.
	if (job.script)
		write_script(&job);
	HANDLE group = CreateJobObjectW(NULL, NULL);
	// In our own console, as a command interpreter starts its programs: a console of its own is another process.
	DWORD flags = CREATE_SUSPENDED | CREATE_UNICODE_ENVIRONMENT;
	// Out of the group of the remote shell, where that allows it: what a step leaves running is to outlive the shell.
	BOOL started = create(&job, line, flags | CREATE_BREAKAWAY_FROM_JOB, &start, &process);
	if (!started) {
		DWORD why = GetLastError();
		if ((program && machine_of(program) == IMAGE_FILE_MACHINE_I386) || refused_32(said))
			tell("bits", "32");
		tell_number("unstartable", why);
		tell_unavailable(log);
		tell_end(0, 0);
		if (job.script)
			DeleteFileW(job.script);
		return 1;
	}
	AssignProcessToJobObject(group, process.hProcess);
	CloseHandle(start.hStdInput); // the other two are for the marks
	HANDLE readers[2] = {CreateThread(NULL, 0, forward, &streams[0], 0, NULL),
			     CreateThread(NULL, 0, forward, &streams[1], 0, NULL)};
	if (feeding.to) {
		feeding.text = input;
		CreateThread(NULL, 0, feed, &feeding, 0, NULL);
	}
	note_begun();
	ResumeThread(process.hThread);
	DWORD code = 1;
	bool late = WaitForSingleObject(process.hProcess, job.timeout) == WAIT_TIMEOUT;
	if (late) {
		TerminateJobObject(group, 1);
		TerminateProcess(process.hProcess, 1);
		WaitForSingleObject(process.hProcess, KILL_MS);
	}
	GetExitCodeProcess(process.hProcess, &code);
	drain(streams, readers);
	for (int i = 0; i < 2; i++)
		if (streams[i].file)
			FlushFileBuffers(streams[i].file);
	if (job.script)
		DeleteFileW(job.script);
	// What is left running says nothing in between; it is over with this process.
	AcquireSRWLockExclusive(&streams[0].forwarding);
	AcquireSRWLockExclusive(&streams[1].forwarding);
	put(err, "\n", 1);
	tell_number("exit", code);
	if (late)
		tell("timed-out", "1");
	if (streams[0].cut || streams[1].cut)
		tell("cut", "1");
	if (streams[0].full || streams[1].full)
		tell("disk-full", "1");
	if (refused_32(said))
		tell("bits", "32");
	if (log_size(STANDBY) > taken)
		tell("warm", "1");
	tell_unavailable(log);
	sorted_files(job.watch, &after);
	int told = 0;
	for (size_t i = 0, j = 0; i < after.count && told < MOST_TOLD; i++) {
		while (j < before.count && compare(&before.items[j], &after.items[i]) < 0)
			j++;
		if (j < before.count && !compare(&before.items[j], &after.items[i]))
			continue;
		tell("new", utf8(after.items[i]));
		told++;
	}
	if (restarts(begun))
		tell("restarting", "1");
	tell_end(streams[0].forwarded, streams[1].forwarded);
	ExitProcess(code);
}

// ---- files

static int receive(void)
{
	struct text text = all_of_input();
	char *at = text.data, *end = text.data + text.size;
	while (at < end) {
		char *stop = memchr(at, '\n', end - at), *path;
		if (!stop)
			fail("what is sent is cut", NULL, 0);
		*stop = 0;
		uint64_t size = strtoull(at, &path, 10);
		if (*path++ != ' ' || size > (uint64_t)(end - stop - 1))
			fail("what is sent is cut", NULL, 0);
		wchar_t *name = wide(path), *beside = join(name, L".vmrole-part", L"");
		HANDLE file = new_file(beside);
		if (!put(file, stop + 1, size)) {
			DWORD why = GetLastError();
			CloseHandle(file);
			DeleteFileW(beside);
			fail("cannot be written", name, why);
		}
		CloseHandle(file);
		// Whole or not at all.
		if (!MoveFileExW(beside, name, MOVEFILE_REPLACE_EXISTING)) {
			DWORD why = GetLastError();
			DeleteFileW(beside);
			fail("cannot be written", name, why);
		}
		at = stop + 1 + size;
	}
	return 0;
}

static HANDLE open_file(const wchar_t *path)
{
	DWORD share = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
	return CreateFileW(path, GENERIC_READ, share, NULL, OPEN_EXISTING, 0, NULL);
}

static uint64_t copy(HANDLE from, uint64_t most)
{
	static char data[65536];
	uint64_t done = 0;
	DWORD got;
	while (done < most) {
		DWORD part = most - done > sizeof data ? sizeof data : (DWORD)(most - done);
		if (!ReadFile(from, data, part, &got, NULL) || !got || !put(out, data, got))
			break;
		done += got;
	}
	return done;
}

static int send_file(const wchar_t *path, uint64_t limit)
{
	DWORD kind = GetFileAttributesW(path);
	if (kind == INVALID_FILE_ATTRIBUTES)
		fail("there is no such file or folder", NULL, GetLastError());
	if (kind & FILE_ATTRIBUTE_DIRECTORY)
		fail("it is a folder", NULL, 0);
	HANDLE file = open_file(path);
	if (file == INVALID_HANDLE_VALUE)
		fail("it cannot be opened", NULL, GetLastError());
	if (GetFileType(file) != FILE_TYPE_DISK)
		fail("it is not a regular file", NULL, 0);
	copy(file, limit);
	return 0;
}

// A POSIX.1-1988 archive; names that do not fit are cut at their front: the index of the harness is for people.
static void archive_file(const wchar_t *path, uint64_t size)
{
	static const char zeros[512];
	char head[512] = {0}, *name = utf8(path);
	HANDLE file = open_file(path);
	if (file == INVALID_HANDLE_VALUE)
		return;
	for (char *at = name; *at; at++)
		if (*at == '\\')
			*at = '/';
	size_t length = strlen(name), prefix = 0;
	if (length > 100) {
		// At a separator: up to 155 bytes before it, up to 100 after it.
		for (size_t i = 0; i < length && i <= 155; i++)
			if (name[i] == '/' && length - i - 1 <= 100) {
				prefix = i;
				break;
			}
		if (!prefix)
			name += length - 100;
	}
	if (prefix) {
		memcpy(head + 345, name, prefix);
		memcpy(head, name + prefix + 1, length - prefix - 1);
	} else
		memcpy(head, name, strlen(name));
	snprintf(head + 100, 8, "%07o", 0600);
	snprintf(head + 108, 8, "%07o", 0);
	snprintf(head + 116, 8, "%07o", 0);
	snprintf(head + 124, 12, "%011llo", (unsigned long long)size);
	snprintf(head + 136, 12, "%011o", 0);
	memset(head + 148, ' ', 8);
	head[156] = '0';
	memcpy(head + 257,
	       "ustar\0"
	       "00",
	       8);
	unsigned sum = 0;
	for (int i = 0; i < 512; i++)
		sum += (unsigned char)head[i];
	snprintf(head + 148, 8, "%06o", sum);
	put(out, head, 512);
	// Of a file that shrinks meanwhile the rest is zeros.
	uint64_t done = copy(file, size);
	for (uint64_t rest = ((size + 511) & ~511ull) - done; rest;) {
		size_t part = rest > 512 ? 512 : (size_t)rest;
		put(out, zeros, part);
		rest -= part;
	}
	CloseHandle(file);
}

static int collect(int count, wchar_t **arguments)
{
	uint64_t limit = _wcstoui64(arguments[0], NULL, 10), each = _wcstoui64(arguments[1], NULL, 10);
	static const char zeros[1024];
	for (int i = 2; i < count; i++) {
		struct list found = {0};
		wchar_t *path = expanded(arguments[i]);
		DWORD kind = GetFileAttributesW(path);
		if (kind != INVALID_FILE_ATTRIBUTES && !(kind & FILE_ATTRIBUTE_DIRECTORY))
			append(&found, path);
		else
			sorted_files(path, &found);
		for (size_t j = 0; j < found.count; j++) {
			WIN32_FILE_ATTRIBUTE_DATA data;
			if (!GetFileAttributesExW(found.items[j], GetFileExInfoStandard, &data))
				continue;
			uint64_t size = (uint64_t)data.nFileSizeHigh << 32 | data.nFileSizeLow;
			uint64_t whole = 512 + ((size + 511) & ~511ull);
			const char *why = size > each     ? "is too large"
					  : whole > limit ? "is beyond what is collected"
							  : NULL;
			if (why) {
				char line[600];
				snprintf(line, sizeof line, "%.500s %s\n", utf8(found.items[j]), why);
				put(err, line, strlen(line));
				continue;
			}
			if (size)
				archive_file(found.items[j], size);
			limit -= whole;
		}
	}
	put(out, zeros, sizeof zeros);
	return 0;
}

// The newest match of a pattern whose folders may have wildcards too: the last by name.
static wchar_t *match(const wchar_t *pattern)
{
	const wchar_t *star = wcspbrk(pattern, L"*?");
	if (!star)
		return GetFileAttributesW(pattern) == INVALID_FILE_ATTRIBUTES ? NULL : join(pattern, L"", L"");
	const wchar_t *begin = star, *rest = wcschr(star, L'\\');
	while (begin > pattern && begin[-1] != L'\\')
		begin--;
	wchar_t *above = join(pattern, L"", L""), *part = join(begin, L"", L""), *best = NULL;
	above[begin - pattern] = 0;
	if (rest)
		part[rest - begin] = 0;
	wchar_t *search = join(above, part, L"");
	WIN32_FIND_DATAW entry;
	HANDLE find = FindFirstFileW(search, &entry);
	if (find == INVALID_HANDLE_VALUE)
		return NULL;
	do {
		if (!wcscmp(entry.cFileName, L".") || !wcscmp(entry.cFileName, L".."))
			continue;
		wchar_t *found = match(join(above, entry.cFileName, rest ? rest : L""));
		if (found && (!best || _wcsicmp(found, best) > 0))
			best = found;
	} while (FindNextFileW(find, &entry));
	FindClose(find);
	return best;
}

static int where(void)
{
	struct text text = all_of_input();
	char *save = text.data;
	for (char *line = text.data; line && *line; line = save) {
		save = strchr(line, '\n');
		if (save)
			*save++ = 0;
		char *glob = strchr(line, '\t');
		if (glob)
			*glob++ = 0;
		wchar_t *name = expanded(wide(line)), found[MAX_PATH * 4], *path = NULL;
		if (SearchPathW(NULL, name, L".exe", MAX_PATH * 4, found, NULL))
			path = found;
		while (!path && glob && *glob) {
			char *next = strchr(glob, '\t');
			if (next)
				*next++ = 0;
			path = match(expanded(wide(glob)));
			glob = next;
		}
		if (path) {
			char *shown = utf8(path);
			put(out, line, strlen(line));
			put(out, "\t", 1);
			put(out, shown, strlen(shown));
			put(out, "\n", 1);
		}
	}
	return 0;
}

int wmain(int count, wchar_t **arguments)
{
	out = GetStdHandle(STD_OUTPUT_HANDLE);
	err = GetStdHandle(STD_ERROR_HANDLE);
	const wchar_t *command = count > 1 ? arguments[1] : L"";
	if (!wcscmp(command, L"run"))
		return run();
	if (!wcscmp(command, L"receive"))
		return receive();
	if (!wcscmp(command, L"send") && count == 4)
		return send_file(arguments[2], _wcstoui64(arguments[3], NULL, 10));
	if (!wcscmp(command, L"collect") && count > 4)
		return collect(count - 2, arguments + 2);
	if (!wcscmp(command, L"where"))
		return where();
	if (!wcscmp(command, L"restarting"))
		return restarting();
	fail("run, receive, send, collect, where or restarting is what this does", NULL, 0);
	return 1;
}
