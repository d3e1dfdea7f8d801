/* SPDX-License-Identifier: Apache-2.0 */
/* What cmd.exe does on Windows and Wine's does otherwise. It is linked with Wine's own sources: a function __wrap_NAME
 * is called in the place of theirs, which is __real_NAME then; mended_NAME stands for a function of Windows. What cannot
 * be done in Wine at all fails as the unavailable programs do (tools/tool.h), at the command that needs it. */
#include "../tools/tool.h"

#include "wcmd.h"

enum { LONGEST = 8191, SET_DIVIDED_BY_ZERO = 0x400023d1 };

extern BOOL echo_mode;
WCHAR *WCMD_expand_envvar(WCHAR *start);
int wine_main(int argc, WCHAR **argv);

UINT mended_page(void)
{
	UINT page = GetConsoleOutputCP();
	return page ? page : GetOEMCP(); /* there is no console */
}

void mended_refuse(const WCHAR *what)
{
	unavailable(what);
}

static const WCHAR *dynamic(const WCHAR *name, WCHAR *own, DWORD size)
{
	SYSTEMTIME now;
	GetLocalTime(&now);
	*own = 0;
	if (!wcsicmp(name, L"CMDCMDLINE"))
		return GetCommandLineW();
	if (!wcsicmp(name, L"CMDEXTVERSION"))
		return L"2";
	if (!wcsicmp(name, L"CD"))
		GetCurrentDirectoryW(size, own);
	else if (!wcsicmp(name, L"ERRORLEVEL"))
		swprintf(own, size, L"%d", errorlevel);
	else if (!wcsicmp(name, L"RANDOM"))
		swprintf(own, size, L"%d", rand() % 32768);
	else if (!wcsicmp(name, L"TIME"))
		swprintf(own, size, L"%2d:%02d:%02d.%02d", now.wHour, now.wMinute, now.wSecond, now.wMilliseconds / 10);
	else if (!wcsicmp(name, L"DATE"))
		GetDateFormatW(LOCALE_USER_DEFAULT, 0, &now, L"ddd MM/dd/yyyy", own, (int)size);
	return *own ? own : NULL;
}

/* GetEnvironmentVariableW with the variables that cmd makes up; IF DEFINED knows them too. */
DWORD mended_variable(const WCHAR *name, WCHAR *value, DWORD size)
{
	static WCHAR own[MAX_PATH];
	DWORD length = GetEnvironmentVariableW(name, value, size);
	const WCHAR *text = length ? NULL : dynamic(name, own, MAX_PATH);
	if (!text)
		return length;
	length = (DWORD)wcslen(text);
	if (length >= size)
		return length + 1;
	wcscpy(value, text);
	return length;
}

/* Whoever is root may write what is read-only. */
static bool is_read_only(const WCHAR *path)
{
	DWORD kind = GetFileAttributesW(path);
	return kind != INVALID_FILE_ATTRIBUTES && kind & FILE_ATTRIBUTE_READONLY && !(kind & FILE_ATTRIBUTE_DIRECTORY);
}

HANDLE mended_open(const WCHAR *path, DWORD access, DWORD share, SECURITY_ATTRIBUTES *security, DWORD how, DWORD flags,
		   HANDLE like)
{
	if (access & GENERIC_WRITE && is_read_only(path)) {
		SetLastError(ERROR_ACCESS_DENIED);
		return INVALID_HANDLE_VALUE;
	}
	return CreateFileW(path, access, share, security, how, flags, like);
}

static int done; /* files that COPY or MOVE went through with */

BOOL mended_copy(const WCHAR *from, const WCHAR *to, BOOL only_new)
{
	if (is_read_only(to)) {
		SetLastError(ERROR_ACCESS_DENIED);
		return FALSE;
	}
	BOOL copied = CopyFileW(from, to, only_new);
	done += copied ? 1 : 0;
	return copied;
}

BOOL mended_move(const WCHAR *from, const WCHAR *to, DWORD flags)
{
	BOOL moved = MoveFileExW(from, to, flags);
	done += moved ? 1 : 0;
	return moved;
}

/* Windows' words for what goes wrong most: patterns of steps know them. Without a line break, which follows. */
static const struct { DWORD code; const WCHAR *text; } words[] = {
	{ERROR_FILE_NOT_FOUND, L"The system cannot find the file specified."},
	{ERROR_PATH_NOT_FOUND, L"The system cannot find the path specified."},
	{ERROR_ACCESS_DENIED, L"Access is denied."},
	{ERROR_SHARING_VIOLATION, L"The process cannot access the file because it is being used by another process."},
	{ERROR_INVALID_NAME, L"The filename, directory name, or volume label syntax is incorrect."},
	{ERROR_DIR_NOT_EMPTY, L"The directory is not empty."},
	{ERROR_DIRECTORY, L"The directory name is invalid."},
};

DWORD WINAPI mended_message(DWORD flags, const void *source, DWORD code, DWORD language, WCHAR *text, DWORD size,
			    va_list *arguments)
{
	for (size_t i = 0; flags & FORMAT_MESSAGE_FROM_SYSTEM && i < sizeof words / sizeof words[0]; i++)
		if (words[i].code == code) {
			WCHAR *own = LocalAlloc(LMEM_FIXED, (wcslen(words[i].text) + 1) * sizeof *own);
			if (!own)
				return 0;
			wcscpy(own, words[i].text);
			*(WCHAR **)text = own;
			return (DWORD)wcslen(own);
		}
	return FormatMessageW(flags, source, code, language, text, size, arguments);
}

/* Delayed expansion: where there is a !, a caret takes the next character as it is. */
void mended_bangs(WCHAR *text)
{
	static WCHAR from[MAXSTRING], part[MAXSTRING];
	if (!delayedsubst || !wcschr(text, L'!'))
		return;
	wcscpy(from, text);
	WCHAR *to = text, *limit = text + MAXSTRING - 1;
	for (WCHAR *at = from; *at && to < limit;) {
		if (*at == L'^' && at[1]) {
			*to++ = at[1];
			at += 2;
		} else if (*at != L'!') {
			*to++ = *at++;
		} else {
			WCHAR *end = wcschr(at + 1, L'!');
			if (!end)
				at++;
			else if (end == at + 1)
				at = end; /* of several one begins a name */
			else {
				memcpy(part, at, (size_t)(end - at + 1) * sizeof *at);
				part[end - at + 1] = 0;
				WCMD_expand_envvar(part);
				size_t size = wcslen(part);
				if (size > (size_t)(limit - to))
					size = (size_t)(limit - to);
				memcpy(to, part, size * sizeof *to);
				to += size;
				at = end + 1;
			}
		}
	}
	*to = 0;
}

/* EXIT without a number leaves the code as it is. */
RETURN_CODE __real_WCMD_exit(void);
RETURN_CODE __wrap_WCMD_exit(void)
{
	if (!param1[0])
		swprintf(param1, MAXSTRING, L"%d", errorlevel);
	return __real_WCMD_exit();
}

/* Whether the folder of `path`, which may end in a pattern, is there. */
static bool has_folder(const WCHAR *path)
{
	WCHAR folder[MAX_PATH], *name;
	if (!GetFullPathNameW(path, MAX_PATH, folder, &name))
		return false;
	if (name)
		*name = 0;
	return GetFileAttributesW(folder) != INVALID_FILE_ATTRIBUTES;
}

/* DEL of a file that is not there is no error; of a folder that is not there it is one. */
RETURN_CODE __real_WCMD_delete(WCHAR *args);
RETURN_CODE __wrap_WCMD_delete(WCHAR *args)
{
	WCHAR *begin, *word, missing[MAX_PATH];
	bool named = false, good = true;
	RETURN_CODE code = __real_WCMD_delete(args);
	for (int i = 0; code == ERROR_INVALID_FUNCTION; i++) {
		word = WCMD_parameter(args, i, &begin, FALSE, FALSE);
		if (!begin)
			break;
		if (*begin == L'/')
			continue;
		named = true;
		good = good && has_folder(word);
		if (has_folder(word) && !wcspbrk(word, L"*?") && GetFileAttributesW(word) == INVALID_FILE_ATTRIBUTES &&
		    GetFullPathNameW(word, MAX_PATH, missing, NULL)) {
			WCMD_output_asis_stderr(L"Could Not Find ");
			WCMD_output_asis_stderr(missing);
			WCMD_output_asis_stderr(L"\r\n");
		}
	}
	return named && good ? errorlevel = NO_ERROR : code;
}

static void tell_done(const WCHAR *what)
{
	WCHAR line[80];
	swprintf(line, 80, L"%9d %ls\r\n", done, what);
	WCMD_output_asis(line);
}

RETURN_CODE __real_WCMD_copy(WCHAR *args);
RETURN_CODE __wrap_WCMD_copy(WCHAR *args)
{
	done = 0;
	RETURN_CODE code = __real_WCMD_copy(args);
	if (code != NO_ERROR)
		return code;
	if (!done || wcschr(args, L'+'))
		done = 1; /* several became one */
	tell_done(L"file(s) copied.");
	return code;
}

RETURN_CODE __real_WCMD_move(void);
RETURN_CODE __wrap_WCMD_move(void)
{
	DWORD kind = GetFileAttributesW(param1);
	bool folder = kind != INVALID_FILE_ATTRIBUTES && kind & FILE_ATTRIBUTE_DIRECTORY;
	done = 0;
	RETURN_CODE code = __real_WCMD_move();
	if (code == NO_ERROR)
		tell_done(folder ? L"dir(s) moved." : L"file(s) moved.");
	return code;
}

/* Of CALL :LABEL, too: the label is not there. */
RETURN_CODE __real_WCMD_goto(void);
RETURN_CODE __wrap_WCMD_goto(void)
{
	RETURN_CODE code = __real_WCMD_goto();
	if (code == ERROR_INVALID_FUNCTION)
		errorlevel = ERROR_INVALID_FUNCTION;
	return code;
}

RETURN_CODE __real_WCMD_echo(const WCHAR *args);
RETURN_CODE __wrap_WCMD_echo(const WCHAR *args)
{
	static WCHAR text[MAXSTRING];
	if (!args[wcsspn(args, L" \t,=")]) {
		WCMD_output_asis(echo_mode ? L"ECHO is on.\r\n" : L"ECHO is off.\r\n");
		return NO_ERROR;
	}
	if (!wcschr(L"([]+\\", *args))
		return __real_WCMD_echo(args);
	wcscpy(text, args);
	*text = L'.';
	return __real_WCMD_echo(text);
}

RETURN_CODE __real_WCMD_clear_screen(void);
RETURN_CODE __wrap_WCMD_clear_screen(void)
{
	DWORD mode;
	if (!GetConsoleMode(GetStdHandle(STD_OUTPUT_HANDLE), &mode))
		WCMD_output_asis(L"\f");
	return __real_WCMD_clear_screen();
}

/* Its bytes as they are; UTF-16 in the code page, as Windows shows it. */
static void type_file(HANDLE file)
{
	static char bytes[65536];
	static WCHAR text[sizeof bytes / 2 + 1];
	HANDLE out = GetStdHandle(STD_OUTPUT_HANDLE);
	DWORD got, wrote;
	bool first = true, wide = false;
	while (ReadFile(file, bytes, sizeof bytes, &got, NULL) && got) {
		DWORD from = first && got >= 2 && !memcmp(bytes, "\xff\xfe", 2) ? 2 : 0;
		wide = wide || from;
		first = false;
		if (wide) {
			memcpy(text, bytes + from, got - from);
			text[(got - from) / 2] = 0;
			WCMD_output_asis(text);
		} else
			WriteFile(out, bytes, got, &wrote, NULL);
	}
}

static RETURN_CODE type_path(const WCHAR *path, bool head)
{
	DWORD share = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
	HANDLE file = CreateFileW(path, GENERIC_READ, share, NULL, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, NULL);
	if (file == INVALID_HANDLE_VALUE) {
		WCMD_print_error();
		return ERROR_INVALID_FUNCTION;
	}
	if (head) {
		WCMD_output_asis_stderr(L"\r\n");
		WCMD_output_asis_stderr(path);
		WCMD_output_asis_stderr(L"\r\n\r\n\r\n");
	}
	type_file(file);
	CloseHandle(file);
	return NO_ERROR;
}

/* All that match `pattern`, each under the folder that the pattern names. */
static RETURN_CODE type_pattern(const WCHAR *pattern)
{
	WCHAR path[2 * MAX_PATH];
	WIN32_FIND_DATAW found;
	HANDLE search = FindFirstFileW(pattern, &found);
	RETURN_CODE code = NO_ERROR;
	bool any = false;
	if (wcslen(pattern) < MAX_PATH && search != INVALID_HANDLE_VALUE)
		do {
			if (found.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY)
				continue;
			wcscpy(path, pattern);
			size_t folder = wcslen(path);
			while (folder && !wcschr(L"\\/:", path[folder - 1]))
				folder--;
			wcscpy(path + folder, found.cFileName);
			any = true;
			if (type_path(path, true) != NO_ERROR)
				code = ERROR_INVALID_FUNCTION;
		} while (FindNextFileW(search, &found));
	if (search != INVALID_HANDLE_VALUE)
		FindClose(search);
	if (any)
		return code;
	SetLastError(ERROR_FILE_NOT_FOUND);
	WCMD_print_error();
	return ERROR_INVALID_FUNCTION;
}

RETURN_CODE __real_WCMD_type(WCHAR *args);
RETURN_CODE __wrap_WCMD_type(WCHAR *args)
{
	WCHAR *begin, *word;
	RETURN_CODE code = NO_ERROR;
	bool several = param2[0];
	if (!param1[0])
		return __real_WCMD_type(args);
	for (int i = 0; (word = WCMD_parameter(args, i, &begin, FALSE, FALSE)), begin; i++) {
		WCHAR path[MAXSTRING];
		wcscpy(path, word);
		RETURN_CODE one = wcspbrk(path, L"*?") ? type_pattern(path) : type_path(path, several);
		code = one == NO_ERROR ? code : one;
	}
	return errorlevel = code;
}

/* What is started and not awaited leaves the code as it was. */
RETURN_CODE __real_WCMD_start(WCHAR *args);
RETURN_CODE __wrap_WCMD_start(WCHAR *args)
{
	WCHAR *begin, *word;
	int before = errorlevel;
	bool waits = false;
	for (int i = 0; (word = WCMD_parameter(args, i, &begin, TRUE, FALSE)), begin; i++)
		waits = waits || !wcsicmp(word, L"/w") || !wcsicmp(word, L"/wait");
	RETURN_CODE code = __real_WCMD_start(args);
	if (code == NO_ERROR && !waits)
		errorlevel = before;
	return code;
}

/* Wine makes a link that is not there afterwards. */
RETURN_CODE __real_WCMD_mklink(WCHAR *args);
RETURN_CODE __wrap_WCMD_mklink(WCHAR *args)
{
	if (param2[0] && !wcsstr(quals, L"/H"))
		unavailable_operation(L"mklink", wcsstr(quals, L"/J") ? L"/j" : L"(symbolic)");
	return __real_WCMD_mklink(args);
}

RETURN_CODE __real_WCMD_remove_dir(WCHAR *args);
RETURN_CODE __wrap_WCMD_remove_dir(WCHAR *args)
{
	WCHAR *begin, *word;
	RETURN_CODE code = NO_ERROR;
	for (int i = 0; wcsstr(quals, L"/S") && ((word = WCMD_parameter(args, i, &begin, FALSE, FALSE)), begin); i++)
		if (*begin != L'/' && GetFileAttributesW(word) == INVALID_FILE_ATTRIBUTES) {
			SetLastError(ERROR_FILE_NOT_FOUND);
			WCMD_print_error();
			code = ERROR_FILE_NOT_FOUND;
		}
	RETURN_CODE own = __real_WCMD_remove_dir(args);
	return own == NO_ERROR ? code : own;
}

static bool asking;   /* SET /P reads */
static bool answered; /* and got more than a line break */
static bool divided;  /* SET /A told of a division by zero */

/* SET /P takes a line: the next one is for the next command, and at the end of all there is none. */
BOOL __real_WCMD_ReadFile(HANDLE from, WCHAR *text, DWORD most, DWORD *count);
BOOL __wrap_WCMD_ReadFile(HANDLE from, WCHAR *text, DWORD most, DWORD *count)
{
	static char line[MAXSTRING];
	DWORD mode, got;
	int size = 0;
	if (!asking || GetConsoleMode(from, &mode))
		return __real_WCMD_ReadFile(from, text, most, count);
	while (size < (int)most - 2 && ReadFile(from, line + size, 1, &got, NULL) && got && line[size] != '\n')
		size++;
	if (size && line[size - 1] == '\r')
		size--;
	answered = size > 0;
	size = MultiByteToWideChar(mended_page(), 0, line, size, text, (int)most - 2);
	text[size] = L'\n';
	*count = (DWORD)size + 1;
	return TRUE;
}

WCHAR *__real_WCMD_LoadMessage(UINT id);
WCHAR *__wrap_WCMD_LoadMessage(UINT id)
{
	divided = divided || id == WCMD_DIVIDEBYZERO;
	return __real_WCMD_LoadMessage(id);
}

RETURN_CODE __real_WCMD_setshow_env(WCHAR *text);
RETURN_CODE __wrap_WCMD_setshow_env(WCHAR *text)
{
	divided = answered = false;
	asking = !_wcsnicmp(text, L"/p", 2);
	WCHAR *prompt = asking ? wcschr(text, L'=') : NULL;
	if (prompt) /* it begins with no blanks */
		memmove(prompt + 1, WCMD_skip_leading_spaces(prompt + 1),
			(wcslen(WCMD_skip_leading_spaces(prompt + 1)) + 1) * sizeof *prompt);
	RETURN_CODE code = __real_WCMD_setshow_env(text);
	if (divided)
		errorlevel = SET_DIVIDED_BY_ZERO;
	if (asking && code == NO_ERROR && !answered)
		code = errorlevel = ERROR_INVALID_FUNCTION;
	asking = false;
	return code;
}

/* Windows' cmd takes no line of a batch file that is longer; Wine's would cut it. */
WCHAR *__real_WCMD_fgets(WCHAR *line, DWORD size, HANDLE from);
WCHAR *__wrap_WCMD_fgets(WCHAR *line, DWORD size, HANDLE from)
{
	WCHAR *read = __real_WCMD_fgets(line, size, from);
	if (read && wcslen(read) == size - 1)
		unavailable(L"cmd (a line of more than 8191 characters)");
	return read;
}

int wmain(int argc, WCHAR **argv)
{
	if (wcslen(GetCommandLineW()) > LONGEST) {
		fprintf(stderr, "The command line is too long.\n");
		return 1;
	}
	return wine_main(argc, argv);
}
