using System.Buffers;

namespace Sidecar.Agent.Audit.Programs;

/// <summary>Which words of a configuration may be shown as names.</summary>
internal static class Shown
{
    private static readonly SearchValues<char> Plain = SearchValues.Create("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:*%@+");

    /// <summary>A short name or path of plain characters.</summary>
    public static bool IsPlain(string text) => text.Length is > 0 and <= 100 && text.AsSpan().IndexOfAnyExcept(Plain) < 0;

    /// <summary>The name, or what stands for one that may not be shown.</summary>
    public static string Name(string text) => IsPlain(text) ? text : "(unnamed)";
}
