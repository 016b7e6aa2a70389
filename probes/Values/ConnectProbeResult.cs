using System.Diagnostics;

namespace Sidecar.Probes.Values;

/// <summary>How a connect probe ended.</summary>
public enum ConnectProbeOutcome
{
    /// <summary>The handshake was completed and, where a protocol was asked for, the server has answered.</summary>
    Connected,

    /// <summary>RST, to the SYN or before the answer: the host answers, nothing listens, or a firewall or proxy rejects.</summary>
    Refused,

    /// <summary>Nothing came back in time.</summary>
    TimedOut,

    /// <summary>No route, or an ICMP error.</summary>
    Unreachable,

    /// <summary>The attempt could not be made here (descriptors, ports, permission): says nothing about the path.</summary>
    NotTried,

    /// <summary>
    /// The handshake was completed and the server's answer did not come: a proxy or a SYN proxy has accepted for it, it hangs, or something else
    /// listens there.
    /// </summary>
    NoAnswer,
}

/// <summary>Result of a connect probe.</summary>
/// <param name="Outcome">How it ended.</param>
/// <param name="Started">Stopwatch timestamp at which the SYN was sent.</param>
/// <param name="Ended">Stopwatch timestamp at which the handshake was completed or had failed.</param>
/// <param name="SynRetransmissions">SYNs that had to be sent again; 0 on a clean path.</param>
/// <param name="Detail">The error as the system names it, or null.</param>
public sealed record ConnectProbeResult(ConnectProbeOutcome Outcome, long Started, long Ended, int SynRetransmissions, string? Detail)
{
    /// <summary>Time from SYN to the end of the handshake, or to its failure.</summary>
    public TimeSpan Elapsed => Stopwatch.GetElapsedTime(Started, Ended);

    /// <summary>A result of which no more is known than how it ended and how long that took.</summary>
    public static ConnectProbeResult Lasting(ConnectProbeOutcome outcome, TimeSpan took) => new(outcome, 0, (long)(took.TotalSeconds * Stopwatch.Frequency), 0, null);

    /// <summary>
    /// Time from the end of the handshake to the server's answer; null where none came, and for plain TCP, which asks for
    /// none.
    /// </summary>
    public TimeSpan? AnsweredAfter { get; init; }

    /// <summary>The server itself has answered in its protocol: path and server are proven end to end.</summary>
    public bool ServerAnswered => AnsweredAfter is not null;

    /// <summary>Whether a window probe on the probe's own connection was answered; null where none was sent.</summary>
    public bool? AnswersWindowProbe { get; init; }

    /// <summary>The local port that it was made from; 0 where none was taken.</summary>
    public int LocalPort { get; init; }
}
