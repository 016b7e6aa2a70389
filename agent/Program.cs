using Sidecar.Agent.Commands;

namespace Sidecar.Agent;

internal static class Program
{
    private static int Main(string[] args) => CommandTree.Invoke(args, CommandEnvironment.OfProcess());
}
