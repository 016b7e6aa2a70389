using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>One socket's options before and after the agent set them, as they are kept over a restart.</summary>
/// <param name="Namespace">Inode of its network namespace.</param>
/// <param name="Cookie">The kernel's cookie, unique until the next boot.</param>
/// <param name="Connection">Addresses, for people.</param>
/// <param name="Original">As the application left them.</param>
/// <param name="Armed">As the agent set them.</param>
public sealed record KeepaliveEntry(ulong Namespace, ulong Cookie, string Connection, KeepaliveOptions Original, KeepaliveOptions Armed);
