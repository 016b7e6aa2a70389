using System.Globalization;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Processes;

namespace Sidecar.Agent.Observation;

/// <summary>Which [workers:…] section a process belongs to: the first whose criteria all hold.</summary>
internal sealed class WorkerMatcher(IReadOnlyList<WorkersSection> sections)
{
    private readonly Dictionary<string, uint?> _users = new(StringComparer.Ordinal);

    /// <summary>The section, or null. What is unknown of the process matches nothing.</summary>
    internal WorkersSection? Find(OwnerInfo process)
    {
        foreach (var section in sections)
        {
            if (Matches(section, process))
            {
                return section;
            }
        }

        return null;
    }

    private bool Matches(WorkersSection section, OwnerInfo process)
    {
        if (section.Unit is null && section.User is null && section.Executable is null)
        {
            return false;
        }

        return (section.Unit is null || section.Unit == process.Unit)
            && (section.User is null || (UidOf(section.User) is { } uid && uid == process.Uid))
            && (section.Executable is null || IsExecutable(section.Executable, process.Executable));
    }

    /// <summary>An absolute path is compared whole, a bare name with the file's name.</summary>
    private static bool IsExecutable(string wanted, string? path) =>
        path is not null && (wanted.StartsWith('/') ? wanted == path : Path.GetFileName(path) == wanted);

    /// <summary>A numeric uid, or a name of /etc/passwd (local users only, so that no directory server is ever asked).</summary>
    private uint? UidOf(string user)
    {
        if (_users.TryGetValue(user, out var known))
        {
            return known;
        }

        uint? uid = uint.TryParse(user, NumberStyles.None, CultureInfo.InvariantCulture, out var number) ? number : LocalUser.Find(user)?.Uid;
        _users[user] = uid;
        return uid;
    }
}
