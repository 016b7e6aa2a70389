using Sidecar.Agent.Commands;

namespace Sidecar.Agent;

internal static class EntryPoint
{
    private static int Main(string[] args) => CommandTree.Invoke(args, CommandEnvironment.OfProcess());
}
