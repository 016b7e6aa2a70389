using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Win32.SafeHandles;
using Sidecar.Probes.Interop;
using Sidecar.Probes.Processes;

namespace Sidecar.Probes.Files;

/// <summary>A file with a secret cannot be used; the message names the file, never what is in it.</summary>
public sealed class SecretFileException(string message) : Exception(message);

/// <summary>
/// A file that holds a secret. One rule wherever such a file is read or checked: a regular file of root, of the agent's user or of
/// who reads it, without any right for others; its group may read it, and no more, where that is root's or the agent's. It is opened
/// once: what is asked of the descriptor is true of what is read through it.
/// </summary>
public static class SecretFile
{
    /// <summary>The user and the group that the package makes.</summary>
    private const string Agent = "conn-sidecar";

    private const int Longest = 64 * 1024;

    private const uint FileTypeMask = 0xF000;
    private const uint RegularFile = 0x8000;

    /// <summary>Reads it.</summary>
    /// <exception cref="SecretFileException">It cannot be opened, is too long, or others can get at it.</exception>
    public static string Read(string path)
    {
        using var file = Open(path);
        var buffer = new byte[Longest + 1];
        var length = 0;
        try
        {
            for (int read; length < buffer.Length && (read = RandomAccess.Read(file, buffer.AsSpan(length), length)) > 0;)
            {
                length += read;
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new SecretFileException($"{path}: cannot be read: {e.Message}");
        }

        return length > Longest ? throw new SecretFileException($"{path}: is longer than {Longest} bytes") : Encoding.UTF8.GetString(buffer, 0, length);
    }

    /// <summary>Why the running agent will refuse it, or null; null too where the one who asks may not open it, and so cannot know.</summary>
    public static string? Problem(string path)
    {
        try
        {
            Open(path).Dispose();
            return null;
        }
        catch (SecretFileException e)
        {
            return e.Message;
        }
        catch (UnauthorizedAccessException)
        {
            return null;
        }
    }

    private static SafeFileHandle Open(string path)
    {
        // Without waiting, should it be a named pipe.
        using var opened = Libc.OpenHandle(path, Libc.O_RDONLY | Libc.O_CLOEXEC | Libc.O_NONBLOCK | Libc.O_NOCTTY);
        if (opened.IsInvalid)
        {
            var errno = Marshal.GetLastPInvokeError();
            throw errno switch
            {
                Libc.ENOENT => new SecretFileException($"{path} does not exist; it has to hold a connection string: install -m 0600 /dev/stdin {path}"),
                Libc.EACCES => new UnauthorizedAccessException($"{path}: cannot be read: {Marshal.GetPInvokeErrorMessage(errno)}"),
                _ => new SecretFileException($"{path}: cannot be read: {Marshal.GetPInvokeErrorMessage(errno)}"),
            };
        }

        if (!Libc.TryStat(opened, out var user, out var group, out var mode))
        {
            throw new SecretFileException($"{path}: cannot be read: {Marshal.GetPInvokeErrorMessage(Marshal.GetLastPInvokeError())}");
        }

        if ((mode & FileTypeMask) != RegularFile)
        {
            throw new SecretFileException($"{path}: is not a file");
        }

        Check(path, user, group, mode & 0xFFF);
        var file = new SafeFileHandle(opened.DangerousGetHandle(), ownsHandle: true);
        opened.SetHandleAsInvalid();
        return file;
    }

    private static void Check(string path, uint user, uint group, uint mode)
    {
        var text = Convert.ToString(mode, 8).PadLeft(4, '0');
        if ((mode & 0x3F & ~0x20u) != 0)
        {
            throw new SecretFileException($"{path}: mode {text} lets others in; it holds a password: chmod 0600 {path}");
        }

        if ((mode & 0x20) != 0 && group != 0 && group != Libc.GetEffectiveGroup() && group != LocalUser.GroupId(Agent))
        {
            throw new SecretFileException(string.Create(
                CultureInfo.InvariantCulture, $"{path}: mode {text} lets the group {group} in; it holds a password: chgrp {Agent} {path}, or chmod 0600 {path}"));
        }

        if (user != 0 && user != Libc.GetEffectiveUser() && user != LocalUser.Find(Agent)?.Uid)
        {
            throw new SecretFileException(string.Create(CultureInfo.InvariantCulture, $"{path}: belongs to the user {user}; it holds a password: chown root {path}"));
        }
    }

}
