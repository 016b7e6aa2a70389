namespace Sidecar.Agent.Commands;

/// <summary>Exit codes of all commands, the same as in the manual page.</summary>
internal static class ExitCodes
{
    /// <summary>Done.</summary>
    public const int Ok = 0;

    /// <summary>It did not work; stderr says why.</summary>
    public const int Failure = 1;

    /// <summary>The command line was not understood.</summary>
    public const int Usage = 2;

    /// <summary>Not permitted, or an agent is there and does not answer.</summary>
    public const int Unreachable = 3;

    /// <summary>The configuration has errors (EX_CONFIG of sysexits.h, which systemd knows by name).</summary>
    public const int BadConfiguration = 78;
}
