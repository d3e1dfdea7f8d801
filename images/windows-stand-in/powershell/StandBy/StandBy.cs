/* SPDX-License-Identifier: Apache-2.0 */
/* A start-up hook (DOTNET_STARTUP_HOOKS) that makes pwsh.exe an engine that stands by (tools/standby.c starts it): it
 * runs the warm-up script in a whole, ordinary console host, forgets what that left in static fields, and waits at a
 * pipe for a caller (tools/standby.h). It takes over what a process gets from its creator (command line, folder,
 * environment, standard handles), and starts the console host a second time. One step for each process. Whatever goes
 * wrong before it has answered its caller is its end, and the caller starts an engine of its own. */
using System;
using System.Collections;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.IO.Pipes;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;
using Microsoft.Win32;

internal static unsafe class StartupHook
{
    private const string Pipe = "vmrole-standby";
    private const string UnavailableLog = @"C:\windows\vmrole-unavailable.log";
    private const int Unavailable = 9150, Longest = 4 << 20;
    private const uint Aborted = 1067; // ERROR_PROCESS_ABORTED
    private const uint DupHandle = 0x40, Synchronize = 0x100000, SameAccess = 2, ReadWrite = 0xC0000000;
    private const BindingFlags Own = BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic;
    private const BindingFlags Shared = BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic;

    [DllImport("kernel32")] private static extern nint OpenProcess(uint access, int inherit, int id);
    [DllImport("kernel32")] private static extern nint GetCurrentProcess();
    [DllImport("kernel32")] private static extern int DuplicateHandle(nint from, nint handle, nint to, out nint made, uint access, int inherit, uint how);
    [DllImport("kernel32")] private static extern nint GetStdHandle(int which);
    [DllImport("kernel32")] private static extern int SetStdHandle(int which, nint handle);
    [DllImport("kernel32")] private static extern int SetHandleInformation(nint handle, uint mask, uint flags);
    [DllImport("kernel32")] private static extern int CloseHandle(nint handle);
    [DllImport("kernel32")] private static extern int WriteFile(nint file, byte* data, int size, out int wrote, nint overlapped);
    [DllImport("kernel32", CharSet = CharSet.Unicode)] private static extern nint CreateFileW(string name, uint access, uint share, nint security, uint how, uint flags, nint template);
    [DllImport("kernel32", CharSet = CharSet.Unicode)] private static extern nint CreateJobObjectW(nint security, string? name);
    [DllImport("kernel32")] private static extern int AssignProcessToJobObject(nint job, nint process);
    [DllImport("kernel32")] private static extern int TerminateJobObject(nint job, uint code);
    [DllImport("kernel32")] private static extern uint WaitForSingleObject(nint handle, uint ms);
    [DllImport("kernel32", CharSet = CharSet.Unicode)] private static extern int SetEnvironmentStringsW(char* block);
    [DllImport("kernel32", CharSet = CharSet.Unicode)] private static extern int SetEnvironmentVariableW(string name, string value);
    [DllImport("kernel32", CharSet = CharSet.Unicode)] private static extern int SetCurrentDirectoryW(string folder);
    [DllImport("ntdll")] private static extern byte* RtlGetCurrentPeb();

    public static void Initialize()
    {
        string script = Environment.GetEnvironmentVariable("VMROLE_STANDBY")!;
        // The hook is this process's alone: what the warm-up starts is ordinary.
        foreach (string name in new[] { "DOTNET_STARTUP_HOOKS", "VMROLE_STANDBY" })
            Environment.SetEnvironmentVariable(name, null);
        nint told = GetStdHandle(-11);
        SetHandleInformation(told, 1, 0);
        for (int i = 0; i < 3; i++)
        {
            nint given = GetStdHandle(-10 - i);
            SetStdHandle(-10 - i, CreateFileW("NUL", ReadWrite, 3, 0, 3, 0, 0));
            if (given != told)
                CloseHandle(given); // nobody is to wait for the end of it
        }
        // On a thread of its own: nothing stays in the main thread's static fields (random numbers, the runspace).
        var warming = new Thread(() => Start(new[] { "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-File", script }));
        warming.Start();
        warming.Join();
        Forget();
        foreach (MethodInfo method in typeof(StartupHook).GetMethods(Shared | BindingFlags.DeclaredOnly))
            RuntimeHelpers.PrepareMethod(method.MethodHandle);
        string settled = Settled();
        // Aggressively: what is free goes back to the system, as every fork would carry it.
        GC.Collect(2, GCCollectionMode.Aggressive, true, true);
        GC.WaitForPendingFinalizers();
        GC.Collect(2, GCCollectionMode.Aggressive, true, true);
        fixed (byte* ready = "ready\n"u8)
            WriteFile(told, ready, 6, out _, 0);
        CloseHandle(told);
        string[] arguments = Array.Empty<string>();
        try
        {
            arguments = Await(settled);
        }
        catch (Exception)
        {
            Environment.Exit(1); // without a word: the streams may be the caller's by now
        }
        int code;
        try
        {
            code = Start(arguments);
        }
        catch (Exception error)
        {
            // The author's scripts cannot do this: the second start of the console host is ours.
            File.AppendAllText(UnavailableLog, $"powershell's engine that stood by ({error.GetType().Name})\n");
            code = Unavailable;
        }
        Environment.Exit(code);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static int Start(string[] arguments) => Microsoft.PowerShell.UnmanagedPSEntry.Start(arguments, arguments.Length);

    /* What a process reads once, when it starts, and keeps: formats, language, time zone. */
    private static string Settled()
    {
        var text = new StringBuilder();
        Append(text, Registry.CurrentUser, @"Control Panel\International");
        Append(text, Registry.LocalMachine, @"SYSTEM\CurrentControlSet\Control\TimeZoneInformation");
        return text.ToString();
    }

    private static void Append(StringBuilder text, RegistryKey root, string name)
    {
        using RegistryKey? key = root.OpenSubKey(name);
        string[] values = key?.GetValueNames() ?? Array.Empty<string>();
        Array.Sort(values, StringComparer.Ordinal);
        foreach (string value in values)
            text.Append(value).Append('=').Append(key!.GetValue(value)).Append('\n');
    }

    private static string[] Await(string settled)
    {
        nint caller, job;
        string[] texts = new string[3], arguments;
        using (var pipe = new NamedPipeServerStream(Pipe, PipeDirection.InOut, NamedPipeServerStream.MaxAllowedServerInstances))
        {
            pipe.WaitForConnection();
            using var reader = new BinaryReader(pipe, Encoding.Unicode);
            int id = reader.ReadInt32();
            if (id == 0 || Settled() != settled)
                Environment.Exit(0); // nobody is answered
            caller = Must(OpenProcess(DupHandle | Synchronize, 0, id));
            for (int i = 0; i < 3; i++)
            {
                nint handle = (nint)reader.ReadInt64();
                // A caller without one has none to give.
                DuplicateHandle(caller, handle, GetCurrentProcess(), out nint own, 0, 1, SameAccess);
                CloseHandle(GetStdHandle(-10 - i));
                SetStdHandle(-10 - i, own);
            }
            for (int i = 0; i < 3; i++)
            {
                int size = reader.ReadInt32();
                if (size < 0 || size > Longest)
                    Environment.Exit(1);
                texts[i] = Encoding.Unicode.GetString(reader.ReadBytes(size));
            }
            Must(SetCurrentDirectoryW(texts[1]));
            SetEnvironment(texts[2]);
            arguments = Split(texts[0]);
            SetLine(texts[0], arguments);
            job = Must(CreateJobObjectW(0, null));
            Must(AssignProcessToJobObject(job, GetCurrentProcess()));
            pipe.WriteByte(1);
        }
        // Whoever ends the caller ends this, and all that it started.
        new Thread(() =>
        {
            WaitForSingleObject(caller, uint.MaxValue);
            TerminateJobObject(job, Aborted);
        }, 64 * 1024) { IsBackground = true }.Start();
        return arguments;
    }

    private static void SetEnvironment(string block)
    {
        var plain = new StringBuilder();
        var hidden = new List<string>();
        foreach (string variable in block.Split('\0', StringSplitOptions.RemoveEmptyEntries))
            if (variable[0] == '=')
                hidden.Add(variable); // the folder of a drive, which is not taken as part of a block
            else
                plain.Append(variable).Append('\0');
        fixed (char* text = plain.Append('\0').ToString())
            Must(SetEnvironmentStringsW(text));
        foreach (string variable in hidden)
        {
            int end = variable.IndexOf('=', 1);
            Must(SetEnvironmentVariableW(variable[..end], variable[(end + 1)..]));
        }
    }

    private static nint Must(nint done) => done != 0 ? done : throw new InvalidOperationException();

    /* What GetCommandLineW, other processes and .NET read. In place: kernelbase has the address of the text. This
     * process was started with a long one. */
    private static void SetLine(string line, string[] arguments)
    {
        byte* parameters = *(byte**)(RtlGetCurrentPeb() + 0x20);
        ushort* sizes = (ushort*)(parameters + 0x70); // length, room
        char* text = *(char**)(parameters + 0x78);
        if (line.Length * 2 + 2 > sizes[1])
            throw new InvalidOperationException();
        line.CopyTo(new Span<char>(text, line.Length));
        text[line.Length] = '\0';
        sizes[0] = (ushort)(line.Length * 2);
        var all = new List<string> { Environment.GetCommandLineArgs()[0] };
        all.AddRange(arguments);
        Set(typeof(Environment), "s_commandLineArgs", all.ToArray());
    }

    /* The words after the program, as the C runtime of pwsh.exe reads them. */
    private static string[] Split(string line)
    {
        var arguments = new List<string>();
        int at = 0;
        bool quoted = false;
        for (; at < line.Length && (quoted || !IsBlank(line[at])); at++)
            if (line[at] == '"')
                quoted = !quoted;
        for (;;)
        {
            while (at < line.Length && IsBlank(line[at]))
                at++;
            if (at == line.Length)
                return arguments.ToArray();
            arguments.Add(Word(line, ref at));
        }
    }

    private static string Word(string line, ref int at)
    {
        var word = new StringBuilder();
        for (bool quoted = false; ; at++)
        {
            int slashes = 0;
            bool kept = true;
            for (; at < line.Length && line[at] == '\\'; at++)
                slashes++;
            if (at < line.Length && line[at] == '"')
            {
                if (slashes % 2 == 0)
                {
                    if (quoted && at + 1 < line.Length && line[at + 1] == '"')
                        at++;
                    else
                    {
                        kept = false;
                        quoted = !quoted;
                    }
                }
                slashes /= 2;
            }
            word.Append('\\', slashes);
            if (at == line.Length || (!quoted && IsBlank(line[at])))
                return word.ToString();
            if (kept)
                word.Append(line[at]);
        }
    }

    private static bool IsBlank(char letter) => letter == ' ' || letter == '\t';

    /* Static fields that a first console host leaves as a second would not find them in a new process. One that is not
     * there is an exception: this engine does not stand by then. */
    private static void Forget()
    {
        foreach (string name in new[] { "s_in", "s_out", "s_error", "s_inputEncoding", "s_outputEncoding", "_isStdInRedirected", "_isStdOutRedirected", "_isStdErrRedirected" })
            Set(typeof(Console), name, null);
        Set(typeof(Console), "s_isOutTextWriterRedirected", false);
        Set(typeof(Console), "s_isErrorTextWriterRedirected", false);

        Assembly host = typeof(Microsoft.PowerShell.UnmanagedPSEntry).Assembly;
        Assembly engine = typeof(System.Management.Automation.PSObject).Assembly;
        Type console = host.GetType("Microsoft.PowerShell.ConsoleHost", true)!;
        object parser = Get(console, "s_cpp");
        object fresh = Activator.CreateInstance(parser.GetType(), true)!;
        foreach (FieldInfo field in parser.GetType().GetFields(Own))
            field.SetValue(parser, field.GetValue(fresh));
        Set(console, "s_theConsoleHost", null);

        Type runspace = typeof(System.Management.Automation.Runspaces.Runspace);
        Set(runspace, "s_primaryRunspace", null);
        Set(runspace, "s_globalId", 0);
        ((IDictionary)Get(runspace, "s_runspaceDictionary")).Clear();

        Type config = engine.GetType("System.Management.Automation.Configuration.PowerShellConfig", true)!;
        FieldInfo roots = config.GetField("configRoots", Own) ?? throw new MissingFieldException(config.FullName, "configRoots");
        Array.Clear((Array)roots.GetValue(Get(config, "Instance"))!);
        Type utilities = engine.GetType("System.Management.Automation.Utils", true)!;
        foreach (string name in new[] { "s_cachedPoliciesFromConfigFile", "s_cachedPoliciesFromRegistry" })
            ((IDictionary)Get(utilities, name)).Clear();
        TimeZoneInfo.ClearCachedData();
        CultureInfo.CurrentCulture.ClearCachedData();
    }

    private static FieldInfo Field(Type type, string name) => type.GetField(name, Shared) ?? throw new MissingFieldException(type.FullName, name);

    private static object Get(Type type, string name) => Field(type, name).GetValue(null)!;

    private static void Set(Type type, string name, object? value) => Field(type, name).SetValue(null, value);
}
