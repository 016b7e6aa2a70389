namespace Sidecar.Simulator;

/// <summary>What is out of the ordinary in a world; the loss, the outages and the idling of the ordinary ones are in all of them.</summary>
internal enum WorldKind
{
    /// <summary>Loss, outages, restarts, slow and silent servers; drawn from each seed as they always were.</summary>
    Ordinary,

    /// <summary>Routers that are away for 2 s to 5 min, and come back with their table or without it.</summary>
    Router,

    /// <summary>A router that completes handshakes for a server that is away.</summary>
    SynProxy,

    /// <summary>Two legs, taken by the parity of the source port, one of which may be dead.</summary>
    Bundle,

    /// <summary>Large packets vanish without an ICMP message.</summary>
    BlackHole,

    /// <summary>Another server takes the address, and knows nothing of the connections.</summary>
    FailOver,

    /// <summary>The agent may not connect: an egress rule, or no ports; or the server accepts nobody.</summary>
    Limits,

    /// <summary>Agents that come late, or are stopped and continued.</summary>
    Late,

    /// <summary>Workers that send without waiting for an answer.</summary>
    Publisher,

    /// <summary>Workers that are stopped (SIGSTOP, a frozen cgroup).</summary>
    Stopped,

    /// <summary>Parents that hold, or have passed on, the sockets that their children use.</summary>
    Forked,
}
