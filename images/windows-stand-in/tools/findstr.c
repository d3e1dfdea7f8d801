/* SPDX-License-Identifier: Apache-2.0 */
/* findstr [/b] [/e] [/i] [/l] [/m] [/n] [/r] [/s: not] [/v] [/x] [/c:TEXT] [/g: not] STRINGS [FILE...], byte by byte.
 * Its expressions know . * ^ $ [class] [^class] \x \< \> . */
#include "tool.h"

#include <ctype.h>

enum { MOST_PATTERNS = 64, MOST_LINE = 1 << 20 };

static bool at_begin, at_end, any_case, literal, names_only, numbers, inverted, whole, expressions;
static char *patterns[MOST_PATTERNS];
static int pattern_count;

static unsigned char fold(char c)
{
	return (unsigned char)(any_case ? tolower((unsigned char)c) : c);
}

static bool is_word(const char *text, const char *end)
{
	return text < end && (isalnum((unsigned char)*text) || *text == '_');
}

/* Length of the first element of an expression. */
static size_t element(const char *pattern)
{
	if (*pattern == '\\' && pattern[1])
		return 2;
	const char *close = *pattern == '[' ? strchr(pattern + 1 + (pattern[1] == '^'), ']') : NULL;
	return close ? (size_t)(close - pattern) + 1 : 1;
}

static bool matches_one(const char *pattern, size_t size, char c)
{
	if (size == 1)
		return *pattern == '.' || fold(*pattern) == fold(c);
	if (*pattern == '\\')
		return fold(pattern[1]) == fold(c);
	bool excluded = pattern[1] == '^', found = false;
	for (const char *p = pattern + 1 + excluded; p < pattern + size - 1; p++)
		if (p[1] == '-' && p + 2 < pattern + size - 1) {
			found = found || (fold(*p) <= fold(c) && fold(c) <= fold(p[2]));
			p += 2;
		} else {
			found = found || fold(*p) == fold(c);
		}
	return found != excluded;
}

static const char *match(const char *pattern, const char *line, const char *text, const char *end)
{
	for (;;) {
		if (!*pattern)
			return text;
		if (pattern[0] == '$' && !pattern[1])
			return text == end ? text : NULL;
		if (pattern[0] == '\\' && (pattern[1] == '<' || pattern[1] == '>')) {
			bool before = text > line && is_word(text - 1, end), after = is_word(text, end);
			if (pattern[1] == '<' ? before || !after : !before || after)
				return NULL;
			pattern += 2;
			continue;
		}
		size_t size = element(pattern);
		if (pattern[size] == '*') {
			const char *last = text;
			while (last < end && matches_one(pattern, size, *last))
				last++;
			for (; last >= text; last--) {
				const char *stop = match(pattern + size + 1, line, last, end);
				if (stop)
					return stop;
			}
			return NULL;
		}
		if (text == end || !matches_one(pattern, size, *text))
			return NULL;
		pattern += size;
		text++;
	}
}

static const char *match_text(const char *pattern, const char *text, const char *end)
{
	for (; *pattern; pattern++, text++)
		if (text == end || fold(*pattern) != fold(*text))
			return NULL;
	return text;
}

static bool found_in(const char *pattern, const char *line, const char *end)
{
	bool begin = at_begin || whole;
	if (!literal && *pattern == '^') {
		begin = true;
		pattern++;
	}
	for (const char *text = line; text <= end; text++) {
		const char *stop = literal ? match_text(pattern, text, end) : match(pattern, line, text, end);
		if (stop && (!(at_end || whole) || stop == end))
			return true;
		if (begin)
			return false;
	}
	return false;
}

static bool search(FILE *file, const char *name, bool prefixed)
{
	static char line[MOST_LINE];
	bool found = false;
	for (unsigned long number = 1; fgets(line, sizeof line, file); number++) {
		size_t length = strcspn(line, "\r\n");
		bool hit = false;
		for (int i = 0; i < pattern_count && !hit; i++)
			hit = found_in(patterns[i], line, line + length);
		if (hit == inverted)
			continue;
		found = true;
		if (names_only) {
			printf("%s\n", name);
			return true;
		}
		if (prefixed)
			printf("%s:", name);
		if (numbers)
			printf("%lu:", number);
		printf("%.*s\n", (int)length, line);
	}
	return found;
}

static void add(char *pattern)
{
	if (pattern_count == MOST_PATTERNS)
		unavailable_operation(L"findstr", L"with so many strings");
	patterns[pattern_count++] = pattern;
}

/* A file, or those that a pattern with * and ? names. */
static bool search_files(const char *wanted, bool prefixed, int *missing)
{
	char path[2 * MAX_PATH];
	WIN32_FIND_DATAA entry;
	HANDLE files = FindFirstFileA(wanted, &entry);
	bool found = false;
	if (files == INVALID_HANDLE_VALUE) {
		fprintf(stderr, "FINDSTR: Cannot open %s\n", wanted);
		++*missing;
		return false;
	}
	const char *slash = strrchr(wanted, '\\');
	do {
		if (entry.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY)
			continue;
		snprintf(path, sizeof path, "%.*s%s", slash ? (int)(slash - wanted) + 1 : 0, wanted, entry.cFileName);
		FILE *file = fopen(path, "rb");
		if (file) {
			found = search(file, path, prefixed) || found;
			fclose(file);
		}
	} while (FindNextFileA(files, &entry));
	FindClose(files);
	return found;
}

static void set_options(const char *letters)
{
	for (; *letters; letters++)
		switch (tolower((unsigned char)*letters)) {
		case 'b': at_begin = true; break;
		case 'e': at_end = true; break;
		case 'i': any_case = true; break;
		case 'l': literal = true; break;
		case 'm': names_only = true; break;
		case 'n': numbers = true; break;
		case 'r': expressions = true; break;
		case 'v': inverted = true; break;
		case 'x': whole = true; break;
		case '/': break; /* of /i/n */
		default: unavailable_operation(L"findstr", (wchar_t[]){L'/', (wchar_t)*letters, 0});
		}
}

int main(int argc, char **argv)
{
	bool found = false, given = false;
	int first = 1, missing = 0;
	for (; first < argc && *argv[first] == '/'; first++) {
		if (_strnicmp(argv[first], "/c:", 3) == 0) {
			add(argv[first] + 3);
			given = true;
		} else if (strchr(argv[first], ':')) {
			unavailable_operation(L"findstr", L"with a file of strings, folders or attributes");
		} else {
			set_options(argv[first] + 1);
		}
	}
	/* Strings with /c: are texts unless /r says otherwise, the others are expressions unless /l does. */
	if (given) {
		literal = !expressions;
	} else if (first < argc) {
		for (char *word = strtok(argv[first], " "); word; word = strtok(NULL, " "))
			add(word);
		first++;
	}
	if (!pattern_count) {
		fprintf(stderr, "FINDSTR: Bad command line\n");
		return 2;
	}
	if (first == argc)
		return search(stdin, "(standard input)", false) ? 0 : 1;
	bool several = argc - first > 1 || strpbrk(argv[first], "*?");
	for (int i = first; i < argc; i++)
		found = search_files(argv[i], several, &missing) || found;
	return found ? 0 : 1;
}
