/* SPDX-License-Identifier: Apache-2.0 */
/* Starts commands for the WinRM listener: one resident Wine process, so that a command costs no other process than its
 * own. A Unix exit status has 8 bits and the argument list of a Unix process mangles quotes; here a command line goes in
 * verbatim and 32 bits come out. Every command is a job: it ends with all that it started.
 *
 * runner.exe PORT TOKEN: listens on 127.0.0.1:PORT (0: any; "port N" is written to standard output), a connection per
 * command. The caller sends TOKEN (32 bytes), four lengths in bytes (32 bits, little-endian) and as many bytes of
 * UTF-16LE each: command line, folder (or none), environment (NAME=VALUE NUL ...; added to the runner's own), and the
 * console's code page in decimal digits. Frames follow in both directions: type (8 bits), size (32 bits), content.
 *
 * Without a command line the environment is values for the registry, below HKEY_LOCAL_MACHINE or (after "HKCU\") the
 * user's, each as KEY NUL NAME NUL TEXT NUL, or "dword:N" as its text; the answer is an exit code.
 */
#define WIN32_LEAN_AND_MEAN
#include <winsock2.h>
#include <windows.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "../../windows-components/run/mark.h"
#include "../../windows-components/run/start.h"

enum frame_type {
	FRAME_STDIN = 1, /* none is the end */
	FRAME_TERMINATE = 2,
	FRAME_STARTED = 65, /* process id */
	FRAME_STDOUT = 66,
	FRAME_STDERR = 67,
	FRAME_EXIT = 68,   /* exit code */
	FRAME_FAILED = 69, /* Windows error of a command that could not be started */
};

enum {
	TOKEN_SIZE = 32,
	MOST_TEXT = 2 << 20,
	PIPE_SIZE = 32 * 1024,
	SILENCE_MS = 250, /* what a command left running may hold its output open: so long it is listened to */
	PATIENCE_MS = 1000,
	TERMINATED = 1067, /* ERROR_PROCESS_ABORTED */
};

struct input {
	struct input *next;
	uint32_t size;
	char data[];
};

struct command {
	SOCKET socket;
	CRITICAL_SECTION sending, queueing;
	HANDLE process, job;
	HANDLE in, out, err; /* our ends of its pipes */
	HANDLE readers[2];
	struct mark marks[2];        /* of its output */
	struct input *first, **last; /* what standard input is still to be given */
	BOOL by_line;                /* how it is given */
	HANDLE queued;
	volatile LONG moved; /* counts bytes of output, and wraps */
	volatile LONG users; /* threads that still use this */
};

struct reader {
	struct command *command;
	HANDLE pipe;
	struct mark *mark;
	enum frame_type type;
};

static char token[TOKEN_SIZE];

static void release(struct command *command)
{
	if (InterlockedDecrement(&command->users))
		return;
	for (struct input *input = command->first, *next; input; input = next) {
		next = input->next;
		free(input);
	}
	HANDLE handles[] = {command->process,
			    command->job,
			    command->in,
			    command->out,
			    command->err,
			    command->queued,
			    command->readers[0],
			    command->marks[0].to,
			    command->marks[0].passed,
			    command->marks[0].ended,
			    command->marks[1].ended,
			    command->readers[1],
			    command->marks[1].to,
			    command->marks[1].passed};
	for (size_t i = 0; i < sizeof handles / sizeof *handles; i++)
		if (handles[i])
			CloseHandle(handles[i]);
	DeleteCriticalSection(&command->sending);
	DeleteCriticalSection(&command->queueing);
	closesocket(command->socket);
	free(command);
}

static BOOL receive(SOCKET socket, void *data, uint32_t size)
{
	for (char *to = data; size;) {
		int got = recv(socket, to, (int)size, 0);
		if (got <= 0)
			return FALSE;
		to += got;
		size -= (uint32_t)got;
	}
	return TRUE;
}

static BOOL send_all(SOCKET socket, const char *data, uint32_t size)
{
	while (size) {
		int sent = send(socket, data, (int)size, 0);
		if (sent <= 0)
			return FALSE;
		data += sent;
		size -= (uint32_t)sent;
	}
	return TRUE;
}

static BOOL send_frame(struct command *command, enum frame_type type, const void *data, uint32_t size)
{
	char head[5] = {(char)type};
	memcpy(head + 1, &size, 4);
	EnterCriticalSection(&command->sending);
	BOOL sent = send_all(command->socket, head, sizeof head) && send_all(command->socket, data, size);
	LeaveCriticalSection(&command->sending);
	return sent;
}

static void send_number(struct command *command, enum frame_type type, uint32_t number)
{
	send_frame(command, type, &number, sizeof number);
}

static BOOL send_output(void *parameter, const char *data, DWORD size)
{
	struct reader *reader = parameter;
	BOOL sent = send_frame(reader->command, reader->type, data, size);
	InterlockedExchangeAdd(&reader->command->moved, (LONG)size);
	return sent;
}

static DWORD WINAPI read_output(void *parameter)
{
	struct reader *reader = parameter;
	struct command *command = reader->command;
	read_marked(reader->mark, reader->pipe, send_output, reader);
	free(reader);
	release(command);
	return 0;
}

/* Wine's cmd reads as much as there is, takes the first line and seeks back to the second, which no pipe can do: the rest
 * is lost. So it, and the commands it starts, find no more than one line in their standard input. */
static BOOL reads_lines(const wchar_t *line)
{
	const wchar_t *end, *name;
	if (*line == L'"')
		end = wcschr(++line, L'"');
	else
		end = line + wcscspn(line, L" \t");
	if (!end)
		return FALSE;
	for (name = end; name > line && !wcschr(L"\\/:", name[-1]);)
		name--;
	size_t length = (size_t)(end - name);
	return (length == 3 && _wcsnicmp(name, L"cmd", 3) == 0) || (length == 7 && _wcsnicmp(name, L"cmd.exe", 7) == 0);
}

static BOOL write_some(struct command *command, const char *data, uint32_t size, DWORD *wrote)
{
	const char *end = command->by_line ? memchr(data, '\n', size) : NULL;
	if (!WriteFile(command->in, data, end ? (uint32_t)(end + 1 - data) : size, wrote, NULL))
		return FALSE;
	if (command->by_line)
		FlushFileBuffers(command->in); /* until it was read, or nobody is left to read it */
	return TRUE;
}

static DWORD WINAPI write_input(void *parameter)
{
	struct command *command = parameter;
	BOOL open = TRUE;
	for (;;) {
		WaitForSingleObject(command->queued, INFINITE);
		EnterCriticalSection(&command->queueing);
		struct input *input = command->first;
		command->first = NULL;
		command->last = &command->first;
		LeaveCriticalSection(&command->queueing);
		for (struct input *next; input; input = next) {
			DWORD wrote;
			next = input->next;
			if (!input->size) { /* the end; more will not come */
				CloseHandle(command->in);
				command->in = NULL;
				free(input);
				for (; next; next = input) {
					input = next->next;
					free(next);
				}
				release(command);
				return 0;
			}
			for (uint32_t done = 0; open && done < input->size; done += wrote)
				open = write_some(command, input->data + done, input->size - done, &wrote);
			free(input);
		}
	}
}

static void queue_input(struct command *command, struct input *input)
{
	EnterCriticalSection(&command->queueing);
	*command->last = input;
	command->last = &input->next;
	LeaveCriticalSection(&command->queueing);
	SetEvent(command->queued);
}

static struct input *new_input(uint32_t size)
{
	struct input *input = malloc(sizeof *input + size);
	if (input) {
		input->next = NULL;
		input->size = size;
	}
	return input;
}

/* Waits for the command's end, for all that it wrote, and for the end of its output, which a process that it left
 * running may hold open: for that not long. */
static DWORD WINAPI await_end(void *parameter)
{
	struct command *command = parameter;
	DWORD code = TERMINATED;
	WaitForSingleObject(command->process, INFINITE);
	GetExitCodeProcess(command->process, &code);
	for (int i = 0; i < 2; i++)
		write_mark(&command->marks[i]);
	for (int i = 0; i < 2; i++)
		WaitForSingleObject(command->marks[i].passed, INFINITE);
	DWORD begun = GetTickCount(), silent = begun;
	for (LONG seen = command->moved; WaitForMultipleObjects(2, command->readers, TRUE, 10) == WAIT_TIMEOUT;) {
		DWORD now = GetTickCount();
		if (seen != command->moved) {
			seen = command->moved;
			silent = now;
		}
		if (now - silent >= SILENCE_MS || now - begun >= PATIENCE_MS)
			break;
	}
	send_number(command, FRAME_EXIT, code);
	release(command);
	return 0;
}

static wchar_t *receive_text(SOCKET socket, uint32_t size)
{
	wchar_t *text = size % 2 || size > MOST_TEXT ? NULL : calloc(1, size + 2 * sizeof *text);
	if (text && !receive(socket, text, size)) {
		free(text);
		return NULL;
	}
	return text;
}

static size_t name_length(const wchar_t *variable)
{
	return wcscspn(variable + 1, L"=") + 1; /* the hidden ones of drives begin with '=' */
}

/* The runner's environment with `changes` in it; a variable without a value is taken out. */
static wchar_t *make_environment(const wchar_t *changes, size_t length)
{
	wchar_t *own = GetEnvironmentStringsW();
	size_t room = length + 2;
	for (wchar_t *variable = own; *variable; variable += wcslen(variable) + 1)
		room += wcslen(variable) + 1;
	wchar_t *block = calloc(room, sizeof *block), *end = block;
	for (wchar_t *variable = own; block && *variable; variable += wcslen(variable) + 1) {
		BOOL changed = FALSE;
		for (const wchar_t *change = changes; *change && !changed; change += wcslen(change) + 1)
			changed = name_length(change) == name_length(variable) &&
				  _wcsnicmp(change, variable, name_length(change)) == 0;
		if (!changed) {
			wcscpy(end, variable);
			end += wcslen(end) + 1;
		}
	}
	for (const wchar_t *change = changes; block && *change; change += wcslen(change) + 1)
		if (change[name_length(change)] == L'=' && change[name_length(change) + 1]) {
			wcscpy(end, change);
			end += wcslen(end) + 1;
		}
	FreeEnvironmentStringsW(own);
	return block;
}

/* A pipe of which the child inherits one end. */
static BOOL make_pipe(HANDLE *ours, HANDLE *childs, BOOL child_reads)
{
	SECURITY_ATTRIBUTES inherited = {.nLength = sizeof inherited, .bInheritHandle = TRUE};
	HANDLE read, write;
	if (!CreatePipe(&read, &write, &inherited, PIPE_SIZE))
		return FALSE;
	*ours = child_reads ? write : read;
	*childs = child_reads ? read : write;
	return SetHandleInformation(*ours, HANDLE_FLAG_INHERIT, 0);
}

static DWORD start(struct command *command, wchar_t *line, const wchar_t *folder, wchar_t *environment)
{
	/* One at a time: a child must not inherit the pipes of another. */
	static SRWLOCK starting = SRWLOCK_INIT;
	STARTUPINFOW how = {.cb = sizeof how, .dwFlags = STARTF_USESTDHANDLES};
	PROCESS_INFORMATION made;
	command->job = CreateJobObjectW(NULL, NULL);
	AcquireSRWLockExclusive(&starting);
	BOOL piped = make_pipe(&command->in, &how.hStdInput, TRUE) &&
		     make_pipe(&command->out, &how.hStdOutput, FALSE) &&
		     make_pipe(&command->err, &how.hStdError, FALSE);
	BOOL started = piped && start_process(NULL, line, TRUE, CREATE_SUSPENDED | CREATE_UNICODE_ENVIRONMENT,
					      environment, *folder ? folder : NULL, &how, &made);
	DWORD error = started ? 0 : GetLastError() ? GetLastError() : ERROR_GEN_FAILURE;
	if (how.hStdInput)
		CloseHandle(how.hStdInput);
	HANDLE outputs[] = {how.hStdOutput, how.hStdError};
	for (int i = 0; i < 2; i++)
		if (!make_mark(&command->marks[i], outputs[i]))
			ExitProcess(ERROR_NOT_ENOUGH_MEMORY);
		else if (outputs[i])
			SetHandleInformation(outputs[i], HANDLE_FLAG_INHERIT, 0);
	ReleaseSRWLockExclusive(&starting);
	if (error)
		return error;
	command->process = made.hProcess;
	AssignProcessToJobObject(command->job, made.hProcess);
	ResumeThread(made.hThread);
	CloseHandle(made.hThread);
	send_number(command, FRAME_STARTED, made.dwProcessId);
	return 0;
}

static HANDLE begin_thread(struct command *command, LPTHREAD_START_ROUTINE routine, void *parameter)
{
	InterlockedIncrement(&command->users);
	HANDLE thread = CreateThread(NULL, 0, routine, parameter, 0, NULL);
	if (!thread || !parameter)
		ExitProcess(ERROR_NOT_ENOUGH_MEMORY); /* the listener starts another runner */
	return thread;
}

static struct reader *new_reader(struct command *command, HANDLE pipe, struct mark *mark, enum frame_type type)
{
	struct reader *reader = malloc(sizeof *reader);
	if (reader)
		*reader = (struct reader){command, pipe, mark, type};
	return reader;
}

/* The caller's frames, until it hangs up: that ends the command and all it started. */
static void serve(struct command *command)
{
	char head[5];
	while (receive(command->socket, head, sizeof head)) {
		uint32_t size;
		memcpy(&size, head + 1, sizeof size);
		if (size > MOST_TEXT)
			break;
		struct input *input = new_input(size);
		if (!input || !receive(command->socket, input->data, size)) {
			free(input);
			break;
		}
		if (head[0] == FRAME_STDIN) {
			queue_input(command, input);
			continue;
		}
		free(input);
		if (head[0] == FRAME_TERMINATE)
			TerminateJobObject(command->job, TERMINATED);
	}
	TerminateJobObject(command->job, TERMINATED);
	shutdown(command->socket, SD_BOTH); /* a reader may be waiting to be rid of its output */
}

static DWORD set_values(wchar_t *values)
{
	LSTATUS status = ERROR_SUCCESS;
	while (*values && status == ERROR_SUCCESS) {
		wchar_t *key = values, *name = key + wcslen(key) + 1, *text = name + wcslen(name) + 1;
		HKEY root = wcsncmp(key, L"HKCU\\", 5) == 0 ? HKEY_CURRENT_USER : HKEY_LOCAL_MACHINE;
		DWORD number = wcstoul(text + 6, NULL, 10);
		if (root == HKEY_CURRENT_USER)
			key += 5;
		if (wcsncmp(text, L"dword:", 6) == 0)
			status = RegSetKeyValueW(root, key, name, REG_DWORD, &number, sizeof number);
		else
			status = RegSetKeyValueW(root, key, name, REG_SZ, text,
						 (DWORD)((wcslen(text) + 1) * sizeof *text));
		values = text + wcslen(text) + 1;
	}
	return (DWORD)status;
}

static void run(struct command *command)
{
	uint32_t sizes[4];
	char given[TOKEN_SIZE];
	wchar_t *texts[4] = {NULL};
	BOOL whole = receive(command->socket, given, TOKEN_SIZE) && memcmp(given, token, TOKEN_SIZE) == 0 &&
		     receive(command->socket, sizes, sizeof sizes);
	for (int i = 0; whole && i < 4; i++)
		whole = (texts[i] = receive_text(command->socket, sizes[i])) != NULL;
	if (whole && !*texts[0]) {
		send_number(command, FRAME_STARTED, 0);
		send_number(command, FRAME_EXIT, set_values(texts[2]));
	} else if (whole) {
		UINT code_page = (UINT)wcstoul(texts[3], NULL, 10);
		wchar_t *environment = make_environment(texts[2], sizes[2] / sizeof(wchar_t));
		command->by_line = reads_lines(texts[0]); /* its start may change the text */
		if (code_page && code_page != GetConsoleOutputCP()) {
			SetConsoleOutputCP(code_page);
			SetConsoleCP(code_page);
		}
		DWORD error = start(command, texts[0], texts[1], environment);
		free(environment);
		if (error) {
			send_number(command, FRAME_FAILED, error);
		} else {
			CloseHandle(begin_thread(command, write_input, command));
			struct reader *out = new_reader(command, command->out, &command->marks[0], FRAME_STDOUT);
			struct reader *err = new_reader(command, command->err, &command->marks[1], FRAME_STDERR);
			command->readers[0] = begin_thread(command, read_output, out);
			command->readers[1] = begin_thread(command, read_output, err);
			CloseHandle(begin_thread(command, await_end, command));
			serve(command);
			queue_input(command, new_input(0)); /* lets that thread end */
		}
	}
	for (int i = 0; i < 4; i++)
		free(texts[i]);
}

static DWORD WINAPI run_connection(void *parameter)
{
	struct command *command = parameter;
	run(command);
	release(command);
	return 0;
}

static void take(SOCKET socket)
{
	struct command *command = calloc(1, sizeof *command);
	BOOL now = TRUE;
	if (!command)
		ExitProcess(ERROR_NOT_ENOUGH_MEMORY);
	setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, (const char *)&now, sizeof now);
	command->socket = socket;
	command->last = &command->first;
	command->queued = CreateEventW(NULL, FALSE, FALSE, NULL);
	InitializeCriticalSection(&command->sending);
	InitializeCriticalSection(&command->queueing);
	CloseHandle(begin_thread(command, run_connection, command));
}

/* The first process that opens the store of root certificates takes out of it what the Linux below does not trust, with
 * it the machine's own. Others that come meanwhile leave it alone: for ever, as this process never ends being the first. */
static void keep_roots(void)
{
	CreateSemaphoreW(NULL, 1, 1, L"crypt32_root_semaphore");
	CreateSemaphoreW(NULL, 1, 1, L"Global\\crypt32_root_semaphore"); /* where services look */
}

/* This program once more, in a console without a window, which ends with us: what Wine starts from Linux has none, and
 * there would be no code page to change. All commands share it. */
static int run_in_console(void)
{
	wchar_t line[MAX_PATH * 2];
	STARTUPINFOW how = {.cb = sizeof how, .dwFlags = STARTF_USESTDHANDLES};
	PROCESS_INFORMATION made;
	DWORD code = 1;
	JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits = {0};
	HANDLE job = CreateJobObjectW(NULL, NULL);
	/* Its commands are in jobs of their own. */
	limits.BasicLimitInformation.LimitFlags =
		JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK;
	SetInformationJobObject(job, JobObjectExtendedLimitInformation, &limits, sizeof limits);
	how.hStdInput = GetStdHandle(STD_INPUT_HANDLE);
	how.hStdOutput = GetStdHandle(STD_OUTPUT_HANDLE);
	how.hStdError = GetStdHandle(STD_ERROR_HANDLE);
	_snwprintf(line, MAX_PATH * 2, L"%ls console", GetCommandLineW());
	line[MAX_PATH * 2 - 1] = 0;
	if (!CreateProcessW(NULL, line, NULL, NULL, TRUE, CREATE_NO_WINDOW | CREATE_SUSPENDED, NULL, NULL, &how,
			    &made)) {
		fprintf(stderr, "runner: it cannot be started in a console: error %lu\n", GetLastError());
		return 1;
	}
	AssignProcessToJobObject(job, made.hProcess);
	ResumeThread(made.hThread);
	WaitForSingleObject(made.hProcess, INFINITE);
	GetExitCodeProcess(made.hProcess, &code);
	return (int)code;
}

int main(int argc, char **argv)
{
	WSADATA data;
	struct sockaddr_in address = {.sin_family = AF_INET};
	int size = sizeof address;
	if (argc == 3 && !GetConsoleOutputCP())
		return run_in_console();
	if (argc < 3 || argc > 4 || strlen(argv[2]) != TOKEN_SIZE) {
		fprintf(stderr, "usage: runner PORT TOKEN\n");
		return 2;
	}
	memcpy(token, argv[2], TOKEN_SIZE);
	keep_roots();
	WSAStartup(MAKEWORD(2, 2), &data);
	SOCKET listener = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons((unsigned short)atoi(argv[1]));
	if (listener == INVALID_SOCKET || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 ||
	    listen(listener, 64) != 0 || getsockname(listener, (struct sockaddr *)&address, &size) != 0) {
		fprintf(stderr, "runner: port %s cannot be listened to: error %d\n", argv[1], WSAGetLastError());
		return 1;
	}
	SetHandleInformation((HANDLE)listener, HANDLE_FLAG_INHERIT, 0);
	printf("port %u\n", ntohs(address.sin_port));
	fflush(stdout);
	for (;;) {
		SOCKET socket = accept(listener, NULL, NULL);
		if (socket == INVALID_SOCKET)
			return 1;
		SetHandleInformation((HANDLE)socket, HANDLE_FLAG_INHERIT, 0);
		take(socket);
	}
}
