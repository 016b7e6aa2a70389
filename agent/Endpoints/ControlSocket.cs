using System.Runtime.InteropServices;

namespace Sidecar.Agent.Endpoints;

/// <summary>What both ends of the control socket agree on.</summary>
internal static partial class ControlSocket
{
    public const string FileName = "control.sock";

    /// <summary>Members may ask the agent and read its incidents without being root.</summary>
    public const string GroupName = "conn-sidecar";

    /// <summary>A request is one line of at most this many bytes, its line feed included.</summary>
    public const int MaxRequestBytes = 4096;

    /// <summary>At most so many incidents in one answer.</summary>
    public const int MaxIncidents = 10_000;

    /// <summary>The answer to <c>status</c> before the first scan has ended.</summary>
    public const string NotYet = "no scan has ended yet";

    public static string PathIn(string runtimeDirectory) => Path.Combine(runtimeDirectory, FileName);

    /// <summary>
    /// Gives a file to the group where the group exists and this process may; otherwise root alone uses the socket,
    /// which is a loss of comfort and not of safety.
    /// </summary>
    internal static void GiveToGroup(string path)
    {
        if (FindGroup() is { } gid)
        {
            _ = Chown(path, uint.MaxValue, gid);
        }
    }

    /// <summary>From /etc/group alone: the package makes a local group, and name services may block for long.</summary>
    private static uint? FindGroup()
    {
        try
        {
            foreach (var line in File.ReadLines("/etc/group"))
            {
                var fields = line.Split(':');
                if (fields.Length >= 3 && string.Equals(fields[0], GroupName, StringComparison.Ordinal) && uint.TryParse(fields[2], out var gid))
                {
                    return gid;
                }
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // A root without /etc/group has no such group.
        }

        return null;
    }

    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    [LibraryImport("libc", EntryPoint = "chown", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Chown(string path, uint owner, uint group);
}

/// <summary>The control socket cannot be served or asked; the message is for the operator.</summary>
internal sealed class ControlException(ControlFailure failure, string message, Exception? inner = null) : Exception(message, inner)
{
    public ControlFailure Failure { get; } = failure;
}

/// <summary>Why the control socket is of no use.</summary>
internal enum ControlFailure
{
    /// <summary>No agent listens there.</summary>
    NotRunning,

    /// <summary>An agent listens, and this user may not speak to it.</summary>
    NotPermitted,

    /// <summary>An agent listens and does not answer in time or not in a form that is understood.</summary>
    NoAnswer,

    /// <summary>Another agent serves this runtime directory.</summary>
    AlreadyRunning,

    /// <summary>The socket or its directory cannot be made.</summary>
    CannotServe,
}
