using System.Reflection;

namespace Sidecar.Agent.Configuration;

/// <summary>The version of this build, as set for the whole solution.</summary>
internal static class ProductVersion
{
    public static string Text { get; } =
        typeof(ProductVersion).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "unknown";
}
