/* SPDX-License-Identifier: Apache-2.0 */
/* powershell.exe and pwsh.exe of an image that was built with a PowerShell which the user supplied: they start that one
 * (`vmrole images build NAME --powershell ZIP`). Between the two lies what PowerShell 7 reads differently: what begins
 * with no switch is a command to Windows PowerShell, and a file to PowerShell 7. An engine that stands by takes the command
 * line where it fits. */
#include "engine.h"
#include "handover.h"

/* Whether `word` is the switch `name`, cut to no less than its first `least` letters. */
static bool is_switch(const wchar_t *word, const wchar_t *name, size_t least)
{
	size_t length = wcslen(word);
	return length >= least && length <= wcslen(name) && _wcsnicmp(word, name, length) == 0;
}

static bool ends_switches(const wchar_t *word)
{
	return is(word, L"ec") || is_switch(word, L"command", 1) || is_switch(word, L"file", 1) ||
	       (is_switch(word, L"encodedcommand", 1) && !is(word, L"ex"));
}

static bool has_value(const wchar_t *word)
{
	return is(word, L"ep") || is(word, L"if") || is(word, L"of") || is(word, L"wd") ||
	       is_switch(word, L"executionpolicy", 2) || is_switch(word, L"inputformat", 2) ||
	       is_switch(word, L"outputformat", 1) || is_switch(word, L"windowstyle", 1) ||
	       is_switch(word, L"configurationname", 6) || is_switch(word, L"workingdirectory", 2);
}

/* The end of the word at `at`, which goes to `word` without its quotation marks. */
static const wchar_t *next_word(const wchar_t *at, wchar_t *word, size_t most)
{
	bool quoted = false;
	size_t length = 0;
	for (; *at && (quoted || (*at != L' ' && *at != L'\t')); at++)
		if (*at == L'"')
			quoted = !quoted;
		else if (length + 1 < most)
			word[length++] = *at;
	word[length] = 0;
	return at;
}

static const wchar_t *skip_blanks(const wchar_t *at)
{
	return at + wcsspn(at, L" \t");
}

/* Where a command begins that no switch says is one; NULL for nowhere. */
static const wchar_t *bare_command(const wchar_t *at)
{
	wchar_t word[300];
	while (*(at = skip_blanks(at))) {
		const wchar_t *end = next_word(at, word, 300);
		if ((*word != L'-' && *word != L'/') || !word[1])
			return *word == L'-' ? NULL : at;
		if (ends_switches(word + 1))
			return NULL;
		/* PowerShell 7 tells its own version then, and ends well. */
		if (is_switch(word + 1, L"version", 1) || is_switch(word + 1, L"psconsolefile", 2))
			unavailable_operation(L"powershell", word);
		at = has_value(word + 1) ? next_word(skip_blanks(end), word, 300) : end;
	}
	return NULL;
}

/* Whether the environment has what a process reads once, when it starts, with other values than an engine that stands by
 * has read. */
static bool starts_otherwise(const wchar_t *variable)
{
	static const wchar_t *const once[] = {L"DOTNET_",          L"COMPlus_",  L"CORECLR_", L"POWERSHELL_",
					      L"PSModuleAnalysis", L"NO_COLOR=", L"TERM=",    L"__PSLockdownPolicy"};
	for (; *variable; variable += wcslen(variable) + 1) {
		const wchar_t *value = wcschr(variable + 1, L'=');
		bool read = false, ours = false;
		for (size_t i = 0; i < sizeof once / sizeof *once; i++)
			read |= _wcsnicmp(variable, once[i], wcslen(once[i])) == 0;
		for (size_t i = 0; value && i < ENGINE_VALUES; i++) {
			size_t length = wcslen(engine_values[i][0]);
			ours |= (size_t)(value - variable) == length &&
				_wcsnicmp(variable, engine_values[i][0], length) == 0 &&
				wcscmp(value + 1, engine_values[i][1]) == 0;
		}
		if (read && !ours)
			return true;
	}
	return false;
}

/* Tells the harness (vmrole-run.exe) that a step came to an engine that stood by. */
static void note_standby(void)
{
	DWORD wrote;
	HANDLE log = CreateFileW(STANDBY_LOG, FILE_APPEND_DATA, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_ALWAYS,
				 0, NULL);
	if (log != INVALID_HANDLE_VALUE) {
		WriteFile(log, "powershell\n", 11, &wrote, NULL);
		CloseHandle(log);
	}
}

int main(void)
{
	static wchar_t line[LINE], word[MAX_PATH];
	const wchar_t *rest = next_word(GetCommandLineW(), word, MAX_PATH);
	const wchar_t *name = wcsrchr(word, L'\\');
	name = name ? name + 1 : word;
	const wchar_t *bare = _wcsnicmp(name, L"powershell", 10) == 0 ? bare_command(rest) : NULL;
	int before = bare ? (int)(bare - rest) : (int)wcslen(rest);
	STARTUPINFOW how = {.cb = sizeof how};
	PROCESS_INFORMATION made;
	DWORD code;
	int wrote = _snwprintf(line, LINE, L"\"" ENGINE L"\"%.*ls%ls%ls", before, rest, bare ? L"-Command " : L"",
			       bare ? bare : L"");
	if (wrote < 0 || wrote >= LINE) {
		fprintf(stderr, "the command line is too long\n");
		return 1;
	}
	if (!has_console())
		unavailable(L"powershell without a console");
	set_engine_values();
	if (!starts_otherwise(GetEnvironmentStringsW()) && (made.hProcess = standby_engine(line)) != NULL)
		note_standby();
	else if (!start_process(ENGINE, line, TRUE, 0, NULL, NULL, &how, &made))
		unavailable(L"powershell");
	WaitForSingleObject(made.hProcess, INFINITE);
	GetExitCodeProcess(made.hProcess, &code);
	ExitProcess(code);
}
