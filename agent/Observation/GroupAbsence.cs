using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Processes;

namespace Sidecar.Agent.Observation;

/// <summary>Why a [workers:…] section matches no process, and what to do.</summary>
internal static class GroupAbsence
{
    /// <summary>Where the system's service manager has its unit files: systemd.unit(5).</summary>
    private static readonly string[] UnitDirectories =
    [
        "/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient", "/run/systemd/generator.early", "/etc/systemd/system",
        "/run/systemd/system", "/run/systemd/generator", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system", "/run/systemd/generator.late",
    ];

    /// <summary>One clause.</summary>
    /// <param name="section">It.</param>
    /// <param name="root">Where the host's files are, for tests; "" as it is.</param>
    public static string Explain(WorkersSection section, string root = "")
    {
        if (section.Unit is { } unit && Units(root) is { Count: > 0 } units && !units.Contains(unit) && !units.Contains(TemplateOf(unit)))
        {
            var meant = ConfigurationKeys.Nearest(unit, units);
            return $"this host has no unit {unit}; {(meant is null ? "systemctl list-units shows those that it has" : $"did you mean {meant}?")}";
        }

        if (section.User is { } user && user.Any(c => !char.IsAsciiDigit(c)) && LocalUser.Find(user) is null)
        {
            return $"this host has no user {user} in /etc/passwd; write one that it has, or a number";
        }

        if (section.Executable is ['/', ..] executable && !File.Exists(root + executable))
        {
            return $"this host has no file {executable}; ls -l /proc/PID/exe shows the one that a worker runs";
        }

        return section is { Unit: { } alone, User: null, Executable: null }
            ? $"unit {alone} has no process; systemctl status {alone} says why"
            : $"no process has {string.Join(" and ", new[] { ("unit", section.Unit), ("user", section.User), ("executable", section.Executable) }
                .Where(criterion => criterion.Item2 is not null).Select(criterion => $"{criterion.Item1} = {criterion.Item2}"))}; are the workers started?";
    }

    /// <summary>The names of all unit files; empty where no systemd is.</summary>
    private static HashSet<string> Units(string root)
    {
        var units = new HashSet<string>(StringComparer.Ordinal);
        foreach (var directory in UnitDirectories)
        {
            try
            {
                units.UnionWith(Directory.EnumerateFiles(root + directory).Select(path => Path.GetFileName(path)).Where(name => name.EndsWith(".service", StringComparison.Ordinal) || name.EndsWith(".scope", StringComparison.Ordinal)));
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                // not on this host
            }
        }

        return units;
    }

    /// <summary><c>uwsgi@.service</c> of <c>uwsgi@shop.service</c>; the name itself where it is no instance.</summary>
    private static string TemplateOf(string unit) =>
        unit.IndexOf('@', StringComparison.Ordinal) is > 0 and var at ? string.Concat(unit.AsSpan(0, at + 1), unit.AsSpan(unit.LastIndexOf('.'))) : unit;
}
