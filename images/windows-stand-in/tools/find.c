/* SPDX-License-Identifier: Apache-2.0 */
/* find [/v] [/c] [/n] [/i] [/off[line]] "TEXT" [FILE...]: Wine's knows no option. Bytes, not characters. */
#include "tool.h"

#include <fcntl.h>
#include <io.h>

static bool inverted, counts, numbers, any_case;
static char text[8192];

static bool holds(const char *line, size_t size)
{
	size_t length = strlen(text);
	for (size_t i = 0; length && i + length <= size; i++)
		if (any_case ? _strnicmp(line + i, text, length) == 0 : memcmp(line + i, text, length) == 0)
			return true;
	return false;
}

/* Whether a line was found. */
static bool look(FILE *file, const wchar_t *name)
{
	size_t size = 0, room = 65536;
	char *data = malloc(room);
	long count = 0, number = 0;
	while (data) {
		size_t got = fread(data + size, 1, room - size, file);
		if (!got)
			break;
		size += got;
		if (size == room)
			data = realloc(data, room *= 2);
	}
	if (!data)
		ExitProcess(2);
	if (name)
		printf(counts ? "\r\n---------- %ls: " : "\r\n---------- %ls\r\n", name);
	for (char *at = data, *end = data + size; at < end;) {
		char *stop = memchr(at, '\n', (size_t)(end - at));
		char *next = stop ? stop + 1 : end;
		size_t length = (size_t)((stop ? stop : end) - at);
		if (length && at[length - 1] == '\r')
			length--;
		number++;
		if (holds(at, length) != inverted) {
			count++;
			if (!counts && numbers)
				printf("[%ld]", number);
			if (!counts)
				printf("%.*s\r\n", (int)length, at);
		}
		at = next;
	}
	if (counts)
		printf("%ld\r\n", count);
	free(data);
	return count > 0;
}

/* Between the outermost quotes; two in it stand for one. The next word, or NULL. */
static wchar_t *take_text(wchar_t *at)
{
	wchar_t found[sizeof text / 2];
	size_t size = 0;
	for (at++; *at && size < sizeof text / 2 - 1; at++) {
		if (*at == L'"' && at[1] != L'"')
			break;
		if (*at == L'"')
			at++;
		found[size++] = *at;
	}
	found[size] = 0;
	if (*at != L'"' || !WideCharToMultiByte(GetACP(), 0, found, -1, text, sizeof text, NULL, NULL))
		return NULL;
	return at + 1;
}

static int look_into(wchar_t *pattern)
{
	WIN32_FIND_DATAW entry;
	wchar_t path[2 * MAX_PATH];
	bool found = false;
	HANDLE search = wcslen(pattern) < MAX_PATH ? FindFirstFileW(pattern, &entry) : INVALID_HANDLE_VALUE;
	if (search == INVALID_HANDLE_VALUE) {
		fprintf(stderr, "File not found - %ls\n", _wcsupr(pattern));
		return 0;
	}
	do {
		wcscpy(path, pattern);
		size_t folder = wcslen(path);
		while (folder && !wcschr(L"\\/:", path[folder - 1]))
			folder--;
		wcscpy(path + folder, entry.cFileName);
		FILE *file = entry.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY ? NULL : _wfopen(path, L"rb");
		if (file) {
			found |= look(file, _wcsupr(path));
			fclose(file);
		}
	} while (FindNextFileW(search, &entry));
	FindClose(search);
	return found;
}

static bool take_option(const wchar_t *word)
{
	if (is(word, L"/v"))
		inverted = true;
	else if (is(word, L"/c"))
		counts = true;
	else if (is(word, L"/n"))
		numbers = true;
	else if (is(word, L"/i"))
		any_case = true;
	else
		return is(word, L"/off") || is(word, L"/offline");
	return true;
}

int main(void)
{
	wchar_t *at = _wcsdup(GetCommandLineW()), word[MAX_PATH];
	bool has_text = false, has_file = false, found = false;
	_setmode(_fileno(stdin), _O_BINARY);
	_setmode(_fileno(stdout), _O_BINARY);
	at += *at == L'"' ? wcscspn(at + 1, L"\"") + 2 : wcscspn(at, L" \t");
	while (*(at += wcsspn(at, L" \t"))) {
		if (*at == L'"' && !has_text) {
			if (!(at = take_text(at))) {
				fprintf(stderr, "FIND: Parameter format not correct\n");
				return 2;
			}
			has_text = true;
			continue;
		}
		bool quoted = *at == L'"';
		size_t size = wcscspn(at += quoted, quoted ? L"\"" : L" \t");
		/* /v/c is two options. */
		if (!quoted && *at == L'/')
			size = 1 + wcscspn(at + 1, L" \t/\"");
		if (size >= MAX_PATH)
			return 2;
		wcsncpy(word, at, size);
		word[size] = 0;
		at += size + (quoted && at[size]);
		if (!quoted && *word == L'/') {
			if (take_option(word))
				continue;
			fprintf(stderr, "FIND: Invalid switch\n");
			return 2;
		}
		if (!has_text) {
			fprintf(stderr, "FIND: Parameter format not correct\n");
			return 2;
		}
		has_file = true;
		found |= look_into(word);
	}
	if (!has_text) {
		fprintf(stderr, "FIND: Parameter format not correct\n");
		return 2;
	}
	if (!has_file)
		found = look(stdin, NULL);
	fflush(stdout);
	return found ? 0 : 1;
}
