namespace Sidecar.Agent.Core.Judgement;

/// <summary>Whether a process is provably blocked on one socket.</summary>
public enum BlockedOn
{
    /// <summary>A thread is blocked in a call on that very socket.</summary>
    Socket,

    /// <summary>No thread is: they run, or wait for something else.</summary>
    Other,

    /// <summary>Stopped, traced or frozen.</summary>
    Stopped,

    /// <summary>It cannot be seen.</summary>
    Unknown,
}
