using System.Globalization;
using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Reading;
using Sidecar.Probes.Processes;

namespace Sidecar.Agent.Audit.Host;

/// <summary>Kernel settings in force, and the line of sysctl.d(5) that sets each.</summary>
internal static class SysctlReader
{
    public static readonly IReadOnlyList<string> Names =
    [
        "net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_retries2",
        "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
    ];

    /// <summary>Where settings stand, the last one first read: a later file of the same name in an earlier directory replaces it.</summary>
    private static readonly string[] Directories = ["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"];

    /// <summary>The values of the calling thread's network namespace. Null for what cannot be read.</summary>
    public static Dictionary<string, long?> InForce() => Names.ToDictionary(name => name, HostFacts.Sysctl, StringComparer.Ordinal);

    /// <summary>The settings that files give, by name: sysctl.d in the order of the files' names, then sysctl.conf.</summary>
    public static Dictionary<string, (long Value, Place Place)> Files(ConfigFiles files)
    {
        var paths = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach (var directory in Directories)
        {
            foreach (var name in files.List(directory) ?? [])
            {
                if (name.EndsWith(".conf", StringComparison.Ordinal))
                {
                    paths.TryAdd(name, ConfigFiles.Absolute(directory, name));
                }
            }
        }

        var found = new Dictionary<string, (long, Place)>(StringComparer.Ordinal);
        foreach (var path in paths.Values.Append("/etc/sysctl.conf"))
        {
            var lines = files.Lines(path, null, optional: true) ?? [];
            for (var i = 0; i < lines.Length; i++)
            {
                var line = lines[i].Trim();
                var equals = line.IndexOf('=', StringComparison.Ordinal);
                if (equals <= 0 || line[0] is '#' or ';')
                {
                    continue;
                }

                var name = line[..equals].Trim().TrimStart('-').Replace('/', '.');
                if (Names.Contains(name, StringComparer.Ordinal) && long.TryParse(line[(equals + 1)..].Trim(), NumberStyles.Integer, CultureInfo.InvariantCulture, out var value))
                {
                    found[name] = (value, new Place(path, i + 1));
                }
            }
        }

        return found;
    }

    /// <summary>Puts both together: a line is named only where it says what is in force.</summary>
    /// <param name="network">The network namespace.</param>
    /// <param name="inForce">Values of the kernel; null: there is none to ask, and the files' values hold.</param>
    /// <param name="files">What files give.</param>
    public static Sysctls Combine(ulong network, Dictionary<string, long?>? inForce, Dictionary<string, (long Value, Place Place)> files) => new()
    {
        Namespace = network,
        Values = Names.ToDictionary(
            name => name,
            name =>
            {
                var value = inForce is null ? null : inForce.GetValueOrDefault(name);
                return files.TryGetValue(name, out var set) && (inForce is null || set.Value == value)
                    ? new Sysctl(set.Value, set.Place)
                    : new Sysctl(value, new Place("/proc/sys/" + name.Replace('.', '/'), 0));
            },
            StringComparer.Ordinal),
    };
}
