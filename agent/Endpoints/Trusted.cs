using Sidecar.Probes.Processes;

namespace Sidecar.Agent.Endpoints;

/// <summary>Who may see whose connections there are: those who may ask the control socket.</summary>
internal static class Trusted
{
    private const string Group = "conn-sidecar";

    /// <summary>Whether a user is root, the agent's own user, or a member of the agent's group by /etc/passwd and /etc/group.</summary>
    public static bool Includes(uint user) =>
        user == 0 || user == Own || LocalUser.IsMember(user, Group);

    private static readonly uint? Own = new ProcessReader().ReadUid(Environment.ProcessId);
}
