using System.Buffers.Text;
using System.Globalization;
using System.Text;

namespace Sidecar.Probes.Processes;

/// <summary>One thread as /proc/PID/task/TID shows it at a moment.</summary>
/// <param name="State">R, S, D, T, t, Z, X.</param>
/// <param name="Tracer">Pid of who traces it; 0 for nobody.</param>
/// <param name="Switches">Context switches so far: a thread whose count has not moved did not run in between.</param>
internal readonly record struct ThreadState(char State, int Tracer, long Switches)
{
    /// <summary>Reads /proc/PID/task/TID/status; false when the thread has gone.</summary>
    internal static bool TryRead(string directory, out ThreadState state)
    {
        state = default;
        Span<byte> buffer = stackalloc byte[8192];
        if (!ProcessReader.TryReadFile(directory + "/status", buffer, out var length))
        {
            return false;
        }

        // The first line holds the thread's own name with newlines escaped, so no other line can be forged.
        ReadOnlySpan<byte> text = buffer[..length];
        var at = text.IndexOf("\nState:\t"u8);
        if (at < 0 || at + 8 >= text.Length
            || !TryNumber(text, "\nTracerPid:\t"u8, out var tracer)
            || !TryNumber(text, "\nvoluntary_ctxt_switches:\t"u8, out var voluntary)
            || !TryNumber(text, "\nnonvoluntary_ctxt_switches:\t"u8, out var involuntary))
        {
            return false;
        }

        state = new ThreadState((char)text[at + 8], (int)tracer, voluntary + involuntary);
        return true;
    }

    private static bool TryNumber(ReadOnlySpan<byte> text, ReadOnlySpan<byte> label, out long value)
    {
        value = 0;
        var at = text.IndexOf(label);
        return at >= 0 && Utf8Parser.TryParse(text[(at + label.Length)..], out value, out _);
    }
}

/// <summary>What /proc/PID/task/TID/syscall says (proc(5)): a number and six arguments where the thread sleeps in a system call.</summary>
internal readonly record struct ThreadCall(long Number, ulong First, ulong Second, ulong Third, ulong Fourth, string Line)
{
    /// <summary>The thread runs, or may.</summary>
    internal bool IsRunning => Line == "running";

    /// <summary>The thread sleeps in a system call.</summary>
    internal bool IsCall => Number >= 0;

    /// <summary>Reads the file; false when the thread has gone or may not be read.</summary>
    internal static bool TryRead(string directory, out ThreadCall call)
    {
        call = default;
        Span<byte> buffer = stackalloc byte[512];
        return ProcessReader.TryReadFile(directory + "/syscall", buffer, out var length) && TryParse(Encoding.UTF8.GetString(buffer[..length]), out call);
    }

    /// <summary><c>running</c>, <c>-1 sp pc</c>, or <c>number a b c d e f sp pc</c>, hexadecimal but for the number.</summary>
    internal static bool TryParse(string text, out ThreadCall call)
    {
        call = default;
        var line = text.TrimEnd('\n');
        if (line == "running")
        {
            call = new ThreadCall(-1, 0, 0, 0, 0, line);
            return true;
        }

        var words = line.Split(' ');
        if (!long.TryParse(words[0], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var number))
        {
            return false;
        }

        if (number < 0)
        {
            call = new ThreadCall(-1, 0, 0, 0, 0, line);
            return true;
        }

        Span<ulong> arguments = stackalloc ulong[4];
        for (var i = 0; i < arguments.Length; i++)
        {
            if (words.Length != 9 || !words[i + 1].StartsWith("0x", StringComparison.Ordinal)
                || !ulong.TryParse(words[i + 1].AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out arguments[i]))
            {
                return false;
            }
        }

        call = new ThreadCall(number, arguments[0], arguments[1], arguments[2], arguments[3], line);
        return true;
    }
}
