using System.Globalization;

namespace Sidecar.Probes.Processes;

/// <summary>Capabilities the agent has a use for (capabilities(7)); values are bit numbers.</summary>
public enum Capability
{
    DacReadSearch = 2,
    Kill = 5,
    NetAdmin = 12,
    NetRaw = 13,
    SysPtrace = 19,
    SysAdmin = 21,
}

/// <summary>The effective capabilities of a process.</summary>
public readonly record struct CapabilitySet(ulong Effective)
{
    public bool Has(Capability capability) => (Effective >> (int)capability & 1) != 0;

    /// <summary>CapEff of the running process; an empty set where it cannot be read.</summary>
    public static CapabilitySet ReadOwn(string root = "/proc")
    {
        try
        {
            foreach (var line in File.ReadLines(root + "/self/status"))
            {
                if (line.StartsWith("CapEff:\t", StringComparison.Ordinal)
                    && ulong.TryParse(line.AsSpan(8), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out var bits))
                {
                    return new CapabilitySet(bits);
                }
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // no proc: nothing is known to be permitted
        }

        return default;
    }

    /// <summary>Its name as in capabilities(7).</summary>
    public static string NameOf(Capability capability) => capability switch
    {
        Capability.DacReadSearch => "CAP_DAC_READ_SEARCH",
        Capability.Kill => "CAP_KILL",
        Capability.NetAdmin => "CAP_NET_ADMIN",
        Capability.NetRaw => "CAP_NET_RAW",
        Capability.SysPtrace => "CAP_SYS_PTRACE",
        Capability.SysAdmin => "CAP_SYS_ADMIN",
        _ => throw new ArgumentOutOfRangeException(nameof(capability), capability, "no such capability"),
    };
}
