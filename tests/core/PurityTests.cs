using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Xunit;

namespace Sidecar.CoreTests;

/// <summary>
/// The core has no clock, task, socket, file, environment or logger. The build refuses the symbols of agent/Core/BannedSymbols.txt; what no
/// list of banned things can see is here: an assembly or a namespace that nobody has thought of.
/// </summary>
public sealed class PurityTests
{
    /// <summary>What the pure part may use. Collections and numbers; no clock, no files, no sockets, no tasks, no P/Invoke.</summary>
    private static readonly HashSet<string> PureNamespaces = new(StringComparer.Ordinal)
    {
        "System",
        "System.Buffers",
        "System.Collections",
        "System.Collections.Frozen",
        "System.Collections.Generic",
        "System.Collections.Immutable",
        "System.Globalization",
        "System.Linq",
        "System.Numerics",
        "System.Text",
        "System.Runtime.CompilerServices",
        "System.Diagnostics.CodeAnalysis",
        "System.Text.Json.Serialization",
        "System.Collections.Concurrent",
    };

    /// <summary>Values, and helpers of the compiler's, in namespaces that are not pure as a whole.</summary>
    private static readonly HashSet<string> PureTypes = new(StringComparer.Ordinal)
    {
        "System.Net.IPAddress", "System.Net.IPNetwork", "System.Net.IPEndPoint", "System.Net.Sockets.AddressFamily", "System.Diagnostics.Debug",
        "System.Reflection.MemberInfo.get_Name", "System.Diagnostics.DebuggerBrowsableAttribute", "System.Diagnostics.DebuggerBrowsableState",
        "System.Runtime.InteropServices.InAttribute", "System.Runtime.InteropServices.ImmutableCollectionsMarshal", "System.Runtime.InteropServices.CollectionsMarshal",
    };

    [Fact]
    public void The_core_depends_on_nothing_but_itself_and_plain_values()
    {
        using var core = AssemblyUses.Open(typeof(Judge));
        AssemblyUses.Uses(core, "Sidecar.Agent.Core").Where(use => !IsPure(use.Used)).Select(use => $"{use.By} uses {use.Used}").Distinct().ShouldBeEmpty();
    }

    [Fact]
    public void The_core_references_no_assembly_of_the_project_but_the_values()
    {
        using var core = AssemblyUses.Open(typeof(Judge));
        AssemblyUses.References(core).ShouldBe(["Sidecar.Values"]);
    }

    [Theory]
    [InlineData("System.IO.File")]
    [InlineData("System.Net.Sockets.Socket")]
    [InlineData("System.Threading.Tasks.Task")]
    [InlineData("System.Diagnostics.Stopwatch.GetTimestamp")]
    [InlineData("System.Reflection.Assembly.Load")]
    public void The_outside_world_is_not_pure(string used) => IsPure(used).ShouldBeFalse();

    [Fact]
    public void The_check_sees_what_others_use()
    {
        using var tests = AssemblyUses.Open(typeof(PurityTests));
        AssemblyUses.Uses(tests, "Sidecar.CoreTests").Select(use => use.Used).ShouldContain("System.IO.File");
    }

    private static bool IsPure(string used)
    {
        if (used.StartsWith("Sidecar.Agent.Core.", StringComparison.Ordinal) || used.StartsWith("Sidecar.Probes.Values.", StringComparison.Ordinal) || !used.Contains('.') || used[0] == '<')
        {
            return true;
        }

        if (used == "System.Reflection.MemberInfo" || PureTypes.Any(type => used == type || used.StartsWith(type + ".", StringComparison.Ordinal)))
        {
            return true;
        }

        // A member is named Namespace.Type.Member, a type Namespace.Type: one of the two prefixes is the namespace.
        var last = used.LastIndexOf('.');
        var first = last > 0 && used[last - 1] == '.' ? last - 1 : last; // ..ctor
        var shorter = used[..first];
        return PureNamespaces.Contains(shorter) || (shorter.LastIndexOf('.') is > 0 and var dot && PureNamespaces.Contains(shorter[..dot]) && char.IsUpper(shorter[dot + 1]) && !IsNamespace(shorter));
    }

    /// <summary>System.IO.File must not pass for the member File of a type System.IO.</summary>
    private static bool IsNamespace(string name) => name is "System.IO" or "System.Net" or "System.Diagnostics" or "System.Threading" or "System.Reflection"
        or "System.Security" or "System.Timers" or "System.Runtime" or "System.Xml" or "System.Data";
}
